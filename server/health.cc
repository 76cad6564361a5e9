#include "server/health.h"

#include <optional>
#include <utility>
#include <vector>

#include "server/status.h"

namespace sluice {
namespace {

using grpc::health::v1::HealthCheckRequest;
using grpc::health::v1::HealthCheckResponse;

constexpr size_t kMaxWatchers = 1024;
constexpr const char* kServices[] = {"", "sluice.v1.InferenceService", "sluice.v1.SessionService"};

bool IsKnown(absl::string_view service) {
  for (const char* known : kServices) {
    if (service == known) return true;
  }
  return false;
}

HealthCheckResponse::ServingStatus StatusOf(bool known, bool serving) {
  if (!known) return HealthCheckResponse::SERVICE_UNKNOWN;
  return serving ? HealthCheckResponse::SERVING : HealthCheckResponse::NOT_SERVING;
}

}  // namespace

// One Watch: writes a status when it differs from the last one written. No lock is held across a
// call of gRPC.
class HealthService::Watcher final : public grpc::ServerWriteReactor<HealthCheckResponse> {
 public:
  Watcher(HealthService* service, bool known, ConnectionCall connection)
      : service_(service),
        known_(known),
        call_{.method = Method::kHealthWatch,
              .started = service->clock_->Now(),
              .connection = std::move(connection)} {}

  // Asks the service under the lock, so that of two changes at once the later one is what stays.
  void Update() {
    {
      MutexLock lock(&mutex_);
      wanted_ = StatusOf(known_, service_->serving());
    }
    Advance();
  }

  void End(grpc::Status status) {
    {
      MutexLock lock(&mutex_);
      if (!end_.has_value()) end_ = std::move(status);
    }
    Advance();
  }

  void OnWriteDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      busy_ = false;
    }
    if (!ok) return End(grpc::Status::CANCELLED);
    Advance();
  }

  void OnCancel() override { End(grpc::Status::CANCELLED); }

  void OnDone() override {
    const grpc::StatusCode code = [&] {
      MutexLock lock(&mutex_);
      return end_->error_code();
    }();
    HealthService* const service = service_;
    service->stats_->Done(call_, code, service->clock_->Now());
    std::shared_ptr<Watcher> self;  // outlives the lock
    MutexLock lock(&service->mutex_);
    auto node = service->watchers_.extract(self_.lock());
    if (!node.empty()) self = std::move(node.value());
  }

  void set_self(const std::shared_ptr<Watcher>& self) { self_ = self; }

 private:
  // Starts what can be started now: a write, or the end.
  void Advance() {
    std::optional<grpc::Status> end;
    {
      MutexLock lock(&mutex_);
      if (busy_ || finished_) return;
      if (end_.has_value()) {
        finished_ = true;
        end = end_;
      } else if (written_ != wanted_) {
        busy_ = true;
        written_ = wanted_;
        message_.set_status(*wanted_);
      } else {
        return;
      }
    }
    if (end.has_value()) {
      Finish(*end);
    } else {
      StartWrite(&message_);
    }
  }

  HealthService* const service_;
  const bool known_;
  const CallRecord call_;
  HealthCheckResponse message_;  // of the write in flight
  std::weak_ptr<Watcher> self_;

  Mutex mutex_;
  std::optional<HealthCheckResponse::ServingStatus> wanted_ SLUICE_GUARDED_BY(mutex_);
  std::optional<HealthCheckResponse::ServingStatus> written_ SLUICE_GUARDED_BY(mutex_);
  std::optional<grpc::Status> end_ SLUICE_GUARDED_BY(mutex_);
  bool busy_ SLUICE_GUARDED_BY(mutex_) = false;
  bool finished_ SLUICE_GUARDED_BY(mutex_) = false;
};

HealthService::HealthService(CallStats* stats, const Clock* clock, EarlyCalls* early_calls,
                             Listener* listener)
    : stats_(stats), clock_(clock), early_calls_(early_calls), listener_(listener) {}

HealthService::~HealthService() = default;

void HealthService::SetServing(bool serving) {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    serving_ = serving;
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) watcher->Update();
}

void HealthService::EndWatches() {
  std::vector<std::shared_ptr<Watcher>> watchers;
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    watchers.assign(watchers_.begin(), watchers_.end());
  }
  for (const std::shared_ptr<Watcher>& watcher : watchers) {
    watcher->End(ToGrpcStatus(absl::UnavailableError("the daemon is shutting down")));
  }
}

bool HealthService::serving() const {
  MutexLock lock(&mutex_);
  return serving_;
}

grpc::ServerUnaryReactor* HealthService::Check(grpc::CallbackServerContext* context,
                                               const HealthCheckRequest* request,
                                               HealthCheckResponse* response) {
  early_calls_->Arrive(*context);
  const absl::Duration started = clock_->Now();
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  grpc::Status status;
  if (IsKnown(request->service())) {
    response->set_status(StatusOf(true, serving()));
  } else {
    status = grpc::Status(grpc::StatusCode::NOT_FOUND, "no such service");
  }
  stats_->Done({.method = Method::kHealthCheck,
                .started = started,
                .connection = BeginConnectionCall(listener_, *context)},
               status.error_code(), clock_->Now());
  reactor->Finish(status);
  return reactor;
}

grpc::ServerWriteReactor<HealthCheckResponse>* HealthService::Watch(
    grpc::CallbackServerContext* context, const HealthCheckRequest* request) {
  early_calls_->Arrive(*context);
  const auto watcher = std::make_shared<Watcher>(this, IsKnown(request->service()),
                                                 BeginConnectionCall(listener_, *context));
  watcher->set_self(watcher);
  bool ended;
  bool full;
  {
    MutexLock lock(&mutex_);
    ended = ended_;
    full = watchers_.size() >= kMaxWatchers;
    watchers_.insert(watcher);  // until OnDone, whatever happens
  }
  if (ended) {
    watcher->End(ToGrpcStatus(absl::UnavailableError("the daemon is shutting down")));
  } else if (full) {
    watcher->End(ToGrpcStatus(absl::ResourceExhaustedError("too many watch the daemon's health")));
  } else {
    watcher->Update();
  }
  return watcher.get();
}

}  // namespace sluice
