#include "client/session_client.h"

#include <random>
#include <utility>

#include "absl/strings/str_cat.h"
#include "client/call.h"
#include "sluice/v1/session.grpc.pb.h"

namespace sluice {
namespace {

void ChooseNames(v1::SessionOptions* options) {
  if (options->id().empty()) options->set_id(NewSessionId());
  if (options->affinity().empty()) options->set_affinity(options->id());
}

// Options for a call that makes a session: it goes to the daemon where the session will be looked
// for.
CallOptions ToItsDaemon(const CallOptions& call, const v1::SessionOptions& options) {
  CallOptions routed = call;
  if (routed.affinity.empty()) routed.affinity = options.affinity();
  return routed;
}

}  // namespace

std::string NewSessionId() {
  std::random_device random;
  std::string id;
  for (int i = 0; i < 4; ++i) {
    absl::StrAppend(&id, absl::Hex(static_cast<uint32_t>(random()), absl::kZeroPad8));
  }
  return id;
}

absl::StatusOr<v1::Session> SessionClient::Create(v1::CreateSessionRequest request,
                                                  const CallOptions& options) const {
  ChooseNames(request.mutable_options());
  Call call(ToItsDaemon(options, request.options()));
  v1::Session session;
  absl::Status status = ToAbslStatus(
      v1::SessionService::NewStub(channel_)->CreateSession(call.context(), request, &session),
      address_);
  if (!status.ok()) return status;
  return session;
}

absl::StatusOr<v1::Session> SessionClient::Get(const std::string& id,
                                               const CallOptions& options) const {
  Call call(options, id);
  v1::GetSessionRequest request;
  request.set_id(id);
  v1::Session session;
  absl::Status status = ToAbslStatus(
      v1::SessionService::NewStub(channel_)->GetSession(call.context(), request, &session),
      address_);
  if (!status.ok()) return status;
  return session;
}

absl::Status SessionClient::List(v1::ListSessionsRequest request, const CallOptions& options,
                                 absl::FunctionRef<bool(const v1::Session&)> on_session) const {
  for (;;) {
    Call call(options);
    v1::ListSessionsResponse page;
    absl::Status status = ToAbslStatus(
        v1::SessionService::NewStub(channel_)->ListSessions(call.context(), request, &page),
        address_);
    if (!status.ok()) return status;
    for (const v1::Session& session : page.sessions()) {
      if (!on_session(session)) return absl::OkStatus();
    }
    if (page.next_page_token().empty()) return absl::OkStatus();
    request.set_page_token(page.next_page_token());
  }
}

absl::StatusOr<v1::Session> SessionClient::Update(const v1::UpdateSessionRequest& request,
                                                  const CallOptions& options) const {
  Call call(options, request.session().id());
  v1::Session session;
  absl::Status status = ToAbslStatus(
      v1::SessionService::NewStub(channel_)->UpdateSession(call.context(), request, &session),
      address_);
  if (!status.ok()) return status;
  return session;
}

absl::StatusOr<v1::Session> SessionClient::Fork(const v1::ForkSessionRequest& request,
                                                const CallOptions& options) const {
  Call call(options, request.id());
  v1::Session session;
  absl::Status status = ToAbslStatus(
      v1::SessionService::NewStub(channel_)->ForkSession(call.context(), request, &session),
      address_);
  if (!status.ok()) return status;
  return session;
}

absl::Status SessionClient::Remove(const v1::DeleteSessionRequest& request,
                                   const CallOptions& options) const {
  Call call(options, request.id());
  google::protobuf::Empty nothing;
  return ToAbslStatus(
      v1::SessionService::NewStub(channel_)->DeleteSession(call.context(), request, &nothing),
      address_);
}

absl::Status SessionClient::Export(
    const v1::ExportSessionRequest& request, const CallOptions& options,
    absl::FunctionRef<absl::Status(absl::string_view)> on_data) const {
  Call call(options, request.id());
  const auto reader = v1::SessionService::NewStub(channel_)->ExportSession(call.context(), request);
  absl::Status taken;
  absl::Status status = ReadStream(reader.get(), call.context(), address_,
                                   [&](const v1::ExportSessionResponse& piece) {
                                     taken = on_data(piece.data());
                                     return taken.ok();
                                   });
  return taken.ok() ? status : taken;
}

absl::StatusOr<v1::Session> SessionClient::Import(
    v1::SessionOptions session_options, const CallOptions& options,
    absl::FunctionRef<absl::StatusOr<std::string>()> next_piece) const {
  ChooseNames(&session_options);
  Call call(ToItsDaemon(options, session_options));
  v1::Session session;
  const auto writer =
      v1::SessionService::NewStub(channel_)->ImportSession(call.context(), &session);
  v1::ImportSessionRequest part;
  *part.mutable_options() = std::move(session_options);
  // A write fails when the daemon has ended the call; Finish says why.
  while (writer->Write(part)) {
    absl::StatusOr<std::string> piece = next_piece();
    if (!piece.ok()) {
      call.context()->TryCancel();
      writer->Finish();
      return piece.status();
    }
    if (piece->empty()) {
      writer->WritesDone();
      break;
    }
    part.set_data(*std::move(piece));
  }
  absl::Status status = ToAbslStatus(writer->Finish(), address_);
  if (!status.ok()) return status;
  return session;
}

}  // namespace sluice
