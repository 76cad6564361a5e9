#include "server/http/session_door.h"

#include <atomic>
#include <utility>

#include "absl/strings/str_cat.h"
#include "server/auth.h"
#include "server/http/openai_call.h"
#include "server/http/session_json.h"
#include "server/live_calls.h"

namespace sluice {
namespace {

// Bytes of a state in one piece of the answer.
constexpr size_t kPieceBytes = 256 * 1024;

// A state on its way out. It lives for as long as one of its pieces is on its way.
class ExportAnswer : public std::enable_shared_from_this<ExportAnswer> {
 public:
  ExportAnswer(const InferenceParts* parts, SessionHttpCall call,
               std::unique_ptr<BlobWriter> writer)
      : parts_(parts), call_(std::move(call)), writer_(std::move(writer)) {}

  void Start(const SessionInfo& session) {
    place_ = parts_->auth->Watch(
        call_.tenant, [exchange = call_.exchange](const absl::Status&) { exchange->Cut(); });
    HttpReply head;
    head.content_type = "application/octet-stream";
    AddSession({session.id, session.etag, session.position}, &head);
    call_.exchange->Start(std::move(head));
    SendNext();
  }

 private:
  void SendNext() {
    std::string piece = writer_->Next(kPieceBytes);
    if (piece.empty()) {
      Count(grpc::StatusCode::OK);
      return call_.exchange->End();
    }
    call_.exchange->Send(std::move(piece), [self = shared_from_this()](bool ok) {
      if (ok) return self->SendNext();
      self->Count(grpc::StatusCode::CANCELLED);
    });
  }

  void Count(grpc::StatusCode code) {
    parts_->stats->Done(call_.record, code, parts_->clock->Now());
  }

  const InferenceParts* const parts_;
  const SessionHttpCall call_;
  LiveCalls::Place place_;
  const std::unique_ptr<BlobWriter> writer_;
};

}  // namespace

void SessionDoor::Refuse(const SessionHttpCall& call, const absl::Status& status) const {
  RefuseCall(*parts_, call.exchange.get(), call.record, status, /*chat=*/false);
}

void SessionDoor::Reply(const SessionHttpCall& call, HttpReply reply) const {
  parts_->stats->Done(call.record, grpc::StatusCode::OK, parts_->clock->Now());
  call.exchange->Reply(std::move(reply));
}

Done<v1::Session> SessionDoor::Answer(const SessionHttpCall& call) const {
  return [this, call](absl::StatusOr<v1::Session> session) {
    if (!session.ok()) return Refuse(call, session.status());
    HttpReply reply;
    reply.body = SessionJson(*session);
    AddSession({session->id(), session->etag(), session->position()}, &reply);
    Reply(call, std::move(reply));
  };
}

void SessionDoor::Serve(const SessionHttpCall& call, absl::string_view body) const {
  absl::Status status = calls_->Offered();
  if (status.ok() && call.record.method != Method::kListSessions) {
    status = RefuseQuery(call.exchange->head().target);
  }
  if (!status.ok()) return Refuse(call, status);
  switch (call.record.method) {
    case Method::kCreateSession:
      return Create(call, body);
    case Method::kGetSession:
      return Get(call);
    case Method::kListSessions:
      return List(call);
    case Method::kUpdateSession:
      return Update(call, body);
    case Method::kForkSession:
      return Fork(call, body);
    case Method::kDeleteSession:
      return Delete(call);
    default:
      return Export(call);
  }
}

void SessionDoor::Create(const SessionHttpCall& call, absl::string_view body) const {
  const absl::StatusOr<v1::CreateSessionRequest> message = ParseCreateSession(body);
  if (!message.ok()) return Refuse(call, message.status());
  calls_->Create(call.tenant->name, *message, Answer(call));
}

void SessionDoor::Get(const SessionHttpCall& call) const {
  v1::GetSessionRequest message;
  message.set_id(call.id);
  calls_->Get(call.tenant->name, message, Answer(call));
}

void SessionDoor::List(const SessionHttpCall& call) const {
  const absl::StatusOr<v1::ListSessionsRequest> message =
      ParseListSessions(call.exchange->head().target);
  if (!message.ok()) return Refuse(call, message.status());
  calls_->List(call.tenant->name, *message,
               [this, call](absl::StatusOr<v1::ListSessionsResponse> page) {
                 if (!page.ok()) return Refuse(call, page.status());
                 HttpReply reply;
                 reply.body = SessionListJson(*page);
                 Reply(call, std::move(reply));
               });
}

void SessionDoor::Update(const SessionHttpCall& call, absl::string_view body) const {
  absl::StatusOr<v1::UpdateSessionRequest> message = ParseUpdateSession(body);
  if (!message.ok()) return Refuse(call, message.status());
  const absl::StatusOr<std::string> etag = EtagOf(call.exchange->head(), message->session().etag());
  if (!etag.ok()) return Refuse(call, etag.status());
  message->mutable_session()->set_id(call.id);
  message->mutable_session()->set_etag(*etag);
  calls_->Update(call.tenant->name, *message, Answer(call));
}

void SessionDoor::Fork(const SessionHttpCall& call, absl::string_view body) const {
  absl::StatusOr<v1::ForkSessionRequest> message = ParseForkSession(body);
  if (!message.ok()) return Refuse(call, message.status());
  const absl::StatusOr<std::string> etag = EtagOf(call.exchange->head(), message->etag());
  if (!etag.ok()) return Refuse(call, etag.status());
  message->set_id(call.id);
  message->set_etag(*etag);
  calls_->Fork(call.tenant->name, *message, Answer(call));
}

void SessionDoor::Delete(const SessionHttpCall& call) const {
  const absl::StatusOr<std::string> etag = EtagOf(call.exchange->head(), "");
  if (!etag.ok()) return Refuse(call, etag.status());
  v1::DeleteSessionRequest message;
  message.set_id(call.id);
  message.set_etag(*etag);
  calls_->Delete(call.tenant->name, message,
                 [this, call](const absl::StatusOr<google::protobuf::Empty>& deleted) {
                   if (!deleted.ok()) return Refuse(call, deleted.status());
                   HttpReply reply;
                   reply.body = DeletedSessionJson(call.id);
                   Reply(call, std::move(reply));
                 });
}

void SessionDoor::Export(const SessionHttpCall& call) const {
  const absl::StatusOr<std::string> etag = EtagOf(call.exchange->head(), "");
  if (!etag.ok()) return Refuse(call, etag.status());
  v1::ExportSessionRequest message;
  message.set_id(call.id);
  message.set_etag(*etag);
  calls_->Export(call.tenant->name, message, [this, call](absl::StatusOr<ExportedState> state) {
    if (!state.ok()) return Refuse(call, state.status());
    std::make_shared<ExportAnswer>(parts_, call, calls_->NewBlob(call.tenant->name, *state))
        ->Start(state->session);
  });
}

HttpServer::BodyHandler SessionDoor::Import(const SessionHttpCall& call) const {
  struct Incoming {
    SessionSettings settings;
    std::unique_ptr<SessionImport> import;
    // The tenant is no longer let in: nothing more is taken.
    std::shared_ptr<std::atomic<bool>> revoked = std::make_shared<std::atomic<bool>>(false);
    LiveCalls::Place place;
  };
  const auto incoming = std::make_shared<Incoming>();
  absl::Status status = calls_->Offered();
  absl::StatusOr<v1::SessionOptions> options = ParseImportSession(call.exchange->head().target);
  if (status.ok()) status = options.status();
  if (status.ok()) {
    absl::StatusOr<SessionSettings> settings = ParseImportOptions(*options);
    status = settings.status();
    if (settings.ok()) incoming->settings = *std::move(settings);
  }
  if (status.ok()) {
    absl::StatusOr<std::unique_ptr<SessionImport>> import = calls_->StartImport(call.tenant->name);
    status = import.status();
    if (import.ok()) incoming->import = *std::move(import);
  }
  if (!status.ok()) {
    Refuse(call, status);
    return nullptr;
  }
  incoming->place = parts_->auth->Watch(
      call.tenant, [revoked = incoming->revoked](const absl::Status&) { revoked->store(true); });
  call.exchange->StreamBody(
      [this, call = SessionHttpCall(call), incoming](absl::string_view piece) {
        const absl::Status added =
            incoming->revoked->load() ? Authenticator::Revoked() : incoming->import->Add(piece);
        if (added.ok()) return;
        incoming->import.reset();
        Refuse(call, added);
      });
  return [this, call, incoming](const absl::StatusOr<HttpBody>& body) {
    if (!body.ok()) return Refuse(call, body.status());
    if (incoming->revoked->load()) return Refuse(call, Authenticator::Revoked());
    incoming->import->Finish(
        incoming->settings, [incoming, answer = Answer(call)](absl::StatusOr<v1::Session> session) {
          incoming->import.reset();
          answer(std::move(session));
        });
  };
}

}  // namespace sluice
