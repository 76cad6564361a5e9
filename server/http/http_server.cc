#include "server/http/http_server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/post.hpp>
#include <boost/asio/steady_timer.hpp>
#include <chrono>
#include <exception>
#include <future>
#include <map>
#include <thread>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/core/mutex.h"
#include "server/http/http_connection.h"

namespace sluice {
namespace {

namespace asio = boost::asio;

constexpr std::chrono::milliseconds kSweepInterval(250);
constexpr absl::Duration kFlush = absl::Seconds(1);

}  // namespace

class HttpServer::Impl {
 public:
  Impl(const HttpServerOptions& options, const Clock* clock, HttpServerStats* stats,
       Handlers handlers)
      : context_(options, clock, stats, std::move(handlers)),
        work_(asio::make_work_guard(context_.io)),
        sweep_(context_.io) {
    context_.on_closed = [this](HttpConnection* connection) {
      connections_.erase(connection->id());
    };
    context_.on_requests_open = [this](int64_t change) { CountRequests(change); };
  }
  ~Impl() { Stop(); }

  absl::Status Start() {
    absl::StatusOr<std::unique_ptr<Listener>> listener =
        Listener::Bind(context_.options.listen, context_.options.connections);
    if (!listener.ok()) return listener.status();
    listener_ = *std::move(listener);
    ScheduleSweep();
    thread_ = std::thread([this] { context_.io.run(); });
    listener_->Start([this](int fd) { Adopt(fd); });
    return absl::OkStatus();
  }

  void Drain() { context_.draining.store(true, std::memory_order_relaxed); }

  void Stop() {
    if (!thread_.joinable()) return;
    Drain();
    listener_->Stop();
    if (!WaitForRequests(kFlush)) {
      asio::post(context_.io,
                 [this] { ForEach([](HttpConnection* connection) { connection->Cut(); }); });
      WaitForRequests(kFlush);
    }
    asio::post(context_.io, [this] {
      ForEach([](HttpConnection* connection) { connection->Close(); });
      context_.io.stop();
    });
    thread_.join();
  }

  Listener* listener() const { return listener_.get(); }

 private:
  // The listener's thread. Comes back once the connection has its place, and another has made room
  // for it: the next one is counted after that.
  void Adopt(int fd) {
    std::promise<void> adopted;
    asio::post(context_.io, [this, fd, &adopted] {
      Add(fd);
      adopted.set_value();
    });
    adopted.get_future().wait();
  }

  // ---- The server's thread ----

  void Add(int fd) {
    const auto connection = std::make_shared<HttpConnection>(&context_, ++last_id_, fd);
    connections_.emplace(last_id_, connection);
    connection->Start();
    MakeRoom();
  }

  // Closes at most one connection, never the newest, so that the next one finds a place.
  void MakeRoom() {
    const int64_t most = listener_->max_connections();
    const int64_t open = static_cast<int64_t>(connections_.size());
    HttpConnection* stranger = nullptr;  // the oldest that has finished no call
    HttpConnection* idle = nullptr;      // of the others, the one that has waited longest
    for (const auto& [id, connection] : connections_) {
      if (id == last_id_ || !connection->CanBeEvicted()) continue;
      if (!connection->finished_call()) {
        stranger = connection.get();
        break;
      }
      if (idle == nullptr || connection->since() < idle->since()) idle = connection.get();
    }
    if (stranger != nullptr && open * 4 > most * 3) {
      context_.stats->evicted_strangers.Add();
      stranger->Close();
    } else if (idle != nullptr && open >= most) {
      context_.stats->evicted_idle.Add();
      idle->Close();
    }
  }

  void ScheduleSweep() {
    sweep_.expires_after(kSweepInterval);
    sweep_.async_wait([this](const boost::system::error_code& error) {
      if (error) return;
      const absl::Duration now = context_.clock->Now();
      ForEach([now](HttpConnection* connection) { connection->Sweep(now); });
      ScheduleSweep();
    });
  }

  // `use` may close the connection it is given, and no other.
  template <typename Use>
  void ForEach(Use use) {
    for (auto next = connections_.begin(); next != connections_.end();) {
      const std::shared_ptr<HttpConnection> connection = (next++)->second;
      use(connection.get());
    }
  }

  // ---- Any thread ----

  void CountRequests(int64_t change) {
    MutexLock lock(&mutex_);
    requests_ += change;
    if (requests_ == 0) none_open_.NotifyOne();
  }

  // True once none is open.
  bool WaitForRequests(absl::Duration bound) {
    const absl::Duration end = context_.clock->Now() + bound;
    MutexLock lock(&mutex_);
    while (requests_ > 0) {
      const absl::Duration left = end - context_.clock->Now();
      if (left <= absl::ZeroDuration()) return false;
      none_open_.WaitFor(&mutex_, left);
    }
    return true;
  }

  HttpServerContext context_;
  asio::executor_work_guard<asio::io_context::executor_type> work_;
  asio::steady_timer sweep_;
  std::unique_ptr<Listener> listener_;
  // Used on the server's thread alone.
  uint64_t last_id_ = 0;
  std::map<uint64_t, std::shared_ptr<HttpConnection>> connections_;  // oldest first

  Mutex mutex_;
  CondVar none_open_;
  int64_t requests_ SLUICE_GUARDED_BY(mutex_) = 0;
  std::thread thread_;
};

absl::StatusOr<std::unique_ptr<HttpServer>> HttpServer::Start(const HttpServerOptions& options,
                                                              const Clock* clock,
                                                              HttpServerStats* stats,
                                                              Handlers handlers) {
  // Asio's constructors throw where the process has no descriptor left for an event queue.
  std::unique_ptr<Impl> impl;
  try {
    impl = std::make_unique<Impl>(options, clock, stats, std::move(handlers));
  } catch (const std::exception& error) {
    return absl::FailedPreconditionError(
        absl::StrCat("cannot listen on ", FormatAddress(options.listen), ": ", error.what()));
  }
  const absl::Status status = impl->Start();
  if (!status.ok()) return status;
  return std::unique_ptr<HttpServer>(new HttpServer(std::move(impl)));
}

HttpServer::HttpServer(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
HttpServer::~HttpServer() = default;
void HttpServer::Drain() { impl_->Drain(); }
void HttpServer::Stop() { impl_->Stop(); }
const Address& HttpServer::address() const { return impl_->listener()->address(); }
Listener* HttpServer::listener() const { return impl_->listener(); }

}  // namespace sluice
