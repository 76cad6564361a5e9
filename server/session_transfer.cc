#include "server/session_transfer.h"

#include <memory>
#include <optional>
#include <utility>

#include "server/core/mutex.h"
#include "server/live_calls.h"
#include "server/session_call.h"

namespace sluice {
namespace {

// Bytes of data in one message. Clients take 4 MiB by default, the encoding included.
constexpr size_t kPieceBytes = 256 * 1024;
// Bytes that a message takes on the wire beside its data.
constexpr int64_t kPieceSlack = 1024;

// ---- Export ----

class ExportStream final : public grpc::ServerWriteReactor<v1::ExportSessionResponse> {
 public:
  ExportStream(const SessionCalls* calls, CallRecord call)
      : calls_(calls), call_(std::move(call)) {}

  void End(const absl::Status& status) { Finish(EndOf(calls_->parts(), call_, status)); }

  void Start(const TenantRef& tenant, const v1::ExportSessionRequest& message) {
    place_ = calls_->parts().auth->Watch(
        tenant, [revoked = revoked_](const absl::Status&) { revoked->store(true); });
    calls_->Export(tenant->name, message,
                   [this, tenant = tenant->name](absl::StatusOr<ExportedState> state) {
                     if (!state.ok()) return End(state.status());
                     writer_ = calls_->NewBlob(tenant, *state);
                     WriteNext();
                   });
  }

  void OnWriteDone(bool ok) override {
    if (!ok) return End(absl::CancelledError("the client left"));
    WriteNext();
  }

  void OnDone() override { delete this; }

 private:
  void WriteNext() {
    if (revoked_->load()) return End(Authenticator::Revoked());
    std::string piece = writer_->Next(kPieceBytes);
    if (piece.empty()) return End(absl::OkStatus());
    message_.set_data(std::move(piece));
    StartWrite(&message_);
  }

  const SessionCalls* const calls_;
  const CallRecord call_;
  // The tenant is no longer let in: nothing more is written. A write in flight completes first.
  const std::shared_ptr<std::atomic<bool>> revoked_ = std::make_shared<std::atomic<bool>>(false);
  LiveCalls::Place place_;
  std::unique_ptr<BlobWriter> writer_;
  v1::ExportSessionResponse message_;
};

// ---- Import ----

class ImportStream final : public grpc::ServerReadReactor<v1::ImportSessionRequest>,
                           public std::enable_shared_from_this<ImportStream> {
 public:
  ImportStream(SessionCalls* calls, CallRecord call, grpc::CallbackServerContext* context,
               v1::Session* response)
      : calls_(calls), context_(context), response_(response), call_(std::move(call)) {}

  void End(const absl::Status& status) {
    import_.reset();
    Finish(EndOf(calls_->parts(), call_, status));
  }

  void Start(const TenantRef& tenant) {
    absl::StatusOr<std::unique_ptr<SessionImport>> import = calls_->StartImport(tenant->name);
    if (!import.ok()) return End(import.status());
    import_ = *std::move(import);
    place_ =
        calls_->parts().auth->Watch(tenant, [weak = weak_from_this()](const absl::Status& status) {
          if (const std::shared_ptr<ImportStream> live = weak.lock()) live->Revoke(status);
        });
    Read();
  }

  // Ends the stream if it waits for the client; else before it waits again. Any thread.
  void Revoke(const absl::Status& status) {
    {
      MutexLock lock(&mutex_);
      revoked_ = true;
      if (!std::exchange(reading_, false)) return;
    }
    End(status);
  }

  void OnReadDone(bool ok) override {
    {
      MutexLock lock(&mutex_);
      if (!std::exchange(reading_, false)) return;  // revoked
    }
    if (!ok) return context_->IsCancelled() ? End(absl::CancelledError("the client left")) : Take();
    const absl::Status status = Add();
    if (!status.ok()) return End(status);
    call_.connection.Claim(static_cast<int64_t>(message_.data().size()) + kPieceSlack);
    Read();
  }

  void OnDone() override { self_.reset(); }

  // Lives until OnDone.
  void set_self(std::shared_ptr<ImportStream> self) { self_ = std::move(self); }

 private:
  void Read() {
    bool revoked = false;
    {
      MutexLock lock(&mutex_);
      revoked = revoked_;
      reading_ = !revoked;
    }
    if (revoked) return End(Authenticator::Revoked());
    StartRead(&message_);
  }

  absl::Status Add() {
    if (!settings_.has_value()) {
      if (!message_.has_options()) return Misplaced("options", "must be the first message");
      absl::StatusOr<SessionSettings> settings = ParseImportOptions(message_.options());
      if (settings.ok()) settings_ = *std::move(settings);
      return settings.status();
    }
    if (!message_.has_data()) return Misplaced("data", "must be every message but the first");
    return import_->Add(message_.data());
  }

  static absl::Status Misplaced(const char* field, const char* rule) {
    FieldViolations violations;
    violations.Add(field, rule);
    return violations.ToStatus();
  }

  void Take() {
    if (!settings_.has_value()) return End(Misplaced("options", "must be the first message"));
    import_->Finish(*settings_, [this](absl::StatusOr<v1::Session> session) {
      if (session.ok()) *response_ = *session;
      End(session.status());
    });
  }

  SessionCalls* const calls_;
  grpc::CallbackServerContext* const context_;
  v1::Session* const response_;
  const CallRecord call_;
  std::shared_ptr<ImportStream> self_;
  LiveCalls::Place place_;
  std::optional<SessionSettings> settings_;
  std::unique_ptr<SessionImport> import_;  // null: refused
  v1::ImportSessionRequest message_;

  Mutex mutex_;
  bool reading_ SLUICE_GUARDED_BY(mutex_) = false;  // waits for the client
  bool revoked_ SLUICE_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    SessionCalls* calls, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    const v1::ExportSessionRequest& message) {
  auto* stream = new ExportStream(calls, std::move(call));
  if (tenant.ok()) {
    stream->Start(*tenant, message);
  } else {
    stream->End(tenant.status());
  }
  return stream;
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(
    SessionCalls* calls, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    grpc::CallbackServerContext* context, v1::Session* response) {
  const auto stream = std::make_shared<ImportStream>(calls, std::move(call), context, response);
  stream->set_self(stream);
  if (tenant.ok()) {
    stream->Start(*tenant);
  } else {
    stream->End(tenant.status());
  }
  return stream.get();
}

}  // namespace sluice
