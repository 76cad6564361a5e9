#include "server/session_transfer.h"

#include <memory>
#include <optional>
#include <utility>

#include "engine/state/state_blob.h"
#include "server/convert.h"
#include "server/core/mutex.h"
#include "server/live_calls.h"
#include "server/session_call.h"

namespace sluice {
namespace {

// Bytes of data in one message. Clients take 4 MiB by default, the encoding included.
constexpr size_t kPieceBytes = 256 * 1024;
// Each import holds a state's numbers in memory that no budget counts.
constexpr int kMaxImports = 16;
// Bytes that a message takes on the wire beside its data.
constexpr int64_t kPieceSlack = 1024;

absl::Status NoKey() {
  return WithReason(absl::FailedPreconditionError(
                        "this daemon has no state key (--state_key_file) to sign states with"),
                    "NO_STATE_KEY");
}

// ---- Export ----

class ExportStream final : public grpc::ServerWriteReactor<v1::ExportSessionResponse> {
 public:
  ExportStream(const SessionParts& parts, CallRecord call)
      : parts_(parts), call_(std::move(call)) {}

  void End(const absl::Status& status) { Finish(EndOf(parts_, call_, status)); }

  void Start(const TenantRef& tenant, const NamedSession& named) {
    place_ = parts_.auth->Watch(
        tenant, [revoked = revoked_](const absl::Status&) { revoked->store(true); });
    const Done<ExportedState> done = OnAnswers<ExportedState>(
        parts_, [this, tenant = tenant->name](absl::StatusOr<ExportedState> state) {
          if (!state.ok()) return End(state.status());
          writer_.emplace(*parts_.keys, tenant, *parts_.spec, state->info, state->data);
          WriteNext();
        });
    const bool posted =
        parts_.device->Post([tenant = tenant->name, named, done](Sessions& sessions) {
          sessions.Export(tenant, named.id, named.etag, done);
        });
    if (!posted) End(ShuttingDown());
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

  const SessionParts parts_;
  const CallRecord call_;
  // The tenant is no longer let in: nothing more is written. A write in flight completes first.
  const std::shared_ptr<std::atomic<bool>> revoked_ = std::make_shared<std::atomic<bool>>(false);
  LiveCalls::Place place_;
  std::optional<BlobWriter> writer_;
  v1::ExportSessionResponse message_;
};

// ---- Import ----

class ImportStream final : public grpc::ServerReadReactor<v1::ImportSessionRequest>,
                           public std::enable_shared_from_this<ImportStream> {
 public:
  ImportStream(const SessionParts& parts, std::string tenant, CallRecord call,
               grpc::CallbackServerContext* context, int32_t vocab_size, std::atomic<int>* running,
               v1::Session* response)
      : parts_(parts),
        tenant_(std::move(tenant)),
        context_(context),
        vocab_size_(vocab_size),
        running_(running),
        response_(response),
        call_(std::move(call)) {}

  void End(const absl::Status& status) {
    reader_.reset();
    Finish(EndOf(parts_, call_, status));
  }

  void Start(const TenantRef& tenant) {
    held_ = true;
    if (running_->fetch_add(1) >= kMaxImports) {
      return End(absl::ResourceExhaustedError("too many sessions are being imported"));
    }
    reader_.emplace(parts_.keys, tenant_, parts_.spec);
    place_ = parts_.auth->Watch(tenant, [weak = weak_from_this()](const absl::Status& status) {
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

  void OnDone() override {
    if (held_) running_->fetch_sub(1);
    self_.reset();
  }

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
    return reader_->Add(message_.data());
  }

  static absl::Status Misplaced(const char* field, const char* rule) {
    FieldViolations violations;
    violations.Add(field, rule);
    return violations.ToStatus();
  }

  void Take() {
    if (!settings_.has_value()) return End(Misplaced("options", "must be the first message"));
    absl::StatusOr<BlobState> state = reader_->Finish();
    if (!state.ok()) return End(state.status());
    if (state->info.position > 0 &&
        (state->info.last_token < 0 || state->info.last_token >= vocab_size_)) {
      return End(absl::InvalidArgumentError("the state's last token is none of the model's"));
    }
    const Done<SessionInfo> done =
        OnAnswers<SessionInfo>(parts_, [this](absl::StatusOr<SessionInfo> session) {
          if (session.ok()) ToProto(*session, response_);
          End(session.status());
        });
    auto shared = std::make_shared<BlobState>(*std::move(state));
    const bool posted = parts_.device->Post(
        [tenant = tenant_, settings = *settings_, shared, done](Sessions& sessions) {
          sessions.Import(tenant, settings, std::move(shared->info), std::move(shared->data), done);
        });
    if (!posted) End(ShuttingDown());
  }

  const SessionParts parts_;
  const std::string tenant_;
  grpc::CallbackServerContext* const context_;
  const int32_t vocab_size_;
  std::atomic<int>* const running_;
  v1::Session* const response_;
  const CallRecord call_;
  std::shared_ptr<ImportStream> self_;
  LiveCalls::Place place_;
  bool held_ = false;  // counted in *running_
  std::optional<SessionSettings> settings_;
  std::optional<BlobReader> reader_;
  v1::ImportSessionRequest message_;

  Mutex mutex_;
  bool reading_ SLUICE_GUARDED_BY(mutex_) = false;  // waits for the client
  bool revoked_ SLUICE_GUARDED_BY(mutex_) = false;
};

}  // namespace

grpc::ServerWriteReactor<v1::ExportSessionResponse>* StartExport(
    const SessionParts& parts, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    const absl::StatusOr<NamedSession>& named) {
  auto* stream = new ExportStream(parts, std::move(call));
  if (!tenant.ok()) {
    stream->End(tenant.status());
  } else if (!named.ok()) {
    stream->End(named.status());
  } else if (parts.keys == nullptr) {
    stream->End(NoKey());
  } else {
    stream->Start(*tenant, *named);
  }
  return stream;
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* StartImport(
    const SessionParts& parts, const absl::StatusOr<TenantRef>& tenant, CallRecord call,
    grpc::CallbackServerContext* context, int32_t vocab_size, std::atomic<int>* running,
    v1::Session* response) {
  const auto stream =
      std::make_shared<ImportStream>(parts, tenant.ok() ? (*tenant)->name : "", std::move(call),
                                     context, vocab_size, running, response);
  stream->set_self(stream);
  if (!tenant.ok()) {
    stream->End(tenant.status());
  } else if (parts.keys == nullptr) {
    stream->End(NoKey());
  } else {
    stream->Start(*tenant);
  }
  return stream.get();
}

}  // namespace sluice
