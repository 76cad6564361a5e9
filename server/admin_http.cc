#include "server/admin_http.h"

#include <httplib.h>

#include <deque>
#include <thread>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/address.h"
#include "server/core/mutex.h"

namespace sluice {
namespace {

constexpr int kThreads = 16;
constexpr size_t kMaxWaiting = 64;
constexpr time_t kTimeoutSeconds = 2;
constexpr size_t kMaxRequestBytes = 1024;

// httplib gives each connection a thread, and its own pool queues connections without end. This one
// makes the accepting thread wait, so that a flood stays in the kernel's backlog.
class BoundedPool final : public httplib::TaskQueue {
 public:
  BoundedPool() {
    for (int i = 0; i < kThreads; ++i) threads_.emplace_back([this] { Run(); });
  }

  void enqueue(std::function<void()> task) override {
    MutexLock lock(&mutex_);
    while (tasks_.size() >= kMaxWaiting) room_.WaitFor(&mutex_, absl::InfiniteDuration());
    tasks_.push_back(std::move(task));
    news_.NotifyOne();
  }

  void shutdown() override {
    {
      MutexLock lock(&mutex_);
      stop_ = true;
    }
    for (size_t i = 0; i < threads_.size(); ++i) news_.NotifyOne();
    for (std::thread& thread : threads_) thread.join();
  }

 private:
  void Run() {
    while (true) {
      std::function<void()> task;
      {
        MutexLock lock(&mutex_);
        while (tasks_.empty() && !stop_) news_.WaitFor(&mutex_, absl::InfiniteDuration());
        if (tasks_.empty()) return;
        task = std::move(tasks_.front());
        tasks_.pop_front();
        room_.NotifyOne();
      }
      task();
    }
  }

  Mutex mutex_;
  CondVar news_;
  CondVar room_;
  std::deque<std::function<void()>> tasks_ SLUICE_GUARDED_BY(mutex_);
  bool stop_ SLUICE_GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

void Answer(const absl::Status& status, httplib::Response* response) {
  response->status = status.ok() ? 200 : 503;
  response->set_content(status.ok() ? "ok\n" : absl::StrCat(status.message(), "\n"),
                        "text/plain; charset=utf-8");
}

}  // namespace

class AdminHttp::Impl {
 public:
  explicit Impl(AdminHandlers handlers) : handlers_(std::move(handlers)) {
    http_.new_task_queue = [] { return new BoundedPool; };
    // Its default also sets SO_REUSEPORT, with which two daemons start on one port.
    http_.set_socket_options([](int fd) {
      const int on = 1;
      setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof(on));
    });
    http_.set_keep_alive_max_count(1000);
    http_.set_keep_alive_timeout(1);  // stopping waits for it
    http_.set_read_timeout(kTimeoutSeconds);
    http_.set_write_timeout(kTimeoutSeconds);
    http_.set_payload_max_length(kMaxRequestBytes);
    http_.Get("/metrics", [this](const httplib::Request&, httplib::Response& response) {
      response.set_content(handlers_.metrics(), "text/plain; version=0.0.4; charset=utf-8");
    });
    http_.Get("/healthz", [this](const httplib::Request&, httplib::Response& response) {
      Answer(handlers_.healthz(), &response);
    });
    http_.Get("/readyz", [this](const httplib::Request&, httplib::Response& response) {
      Answer(handlers_.readyz(), &response);
    });
  }

  ~Impl() {
    http_.stop();
    if (thread_.joinable()) thread_.join();
  }

  // The port, or -1.
  int Listen(const Address& address) {
    if (address.port == 0) {
      const int port = http_.bind_to_any_port(address.host.c_str());
      if (port <= 0) return -1;
      Serve();
      return port;
    }
    if (!http_.bind_to_port(address.host.c_str(), address.port)) return -1;
    Serve();
    return address.port;
  }

 private:
  void Serve() {
    thread_ = std::thread([this] { http_.listen_after_bind(); });
    // stop() before the loop runs would be lost.
    while (!http_.is_running()) std::this_thread::yield();
  }

  AdminHandlers handlers_;
  httplib::Server http_;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<AdminHttp>> AdminHttp::Start(const std::string& address,
                                                            AdminHandlers handlers) {
  absl::StatusOr<Address> parsed = ParseAddress(address);
  if (!parsed.ok()) return parsed.status();
  std::unique_ptr<AdminHttp> admin(new AdminHttp);
  admin->impl_ = std::make_unique<Impl>(std::move(handlers));
  const int port = admin->impl_->Listen(*parsed);
  if (port < 0) {
    absl::Status status = CheckListen(*parsed);
    if (!status.ok()) return status;
    return absl::FailedPreconditionError(absl::StrCat("cannot listen on ", FormatAddress(*parsed)));
  }
  admin->address_ = FormatAddress({parsed->host, port});
  return admin;
}

AdminHttp::~AdminHttp() = default;

}  // namespace sluice
