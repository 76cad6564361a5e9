#include "server/session_service.h"

#include <utility>

#include "server/convert.h"
#include "server/session_call.h"
#include "server/session_transfer.h"
#include "server/trace.h"
#include "server/validate_fields.h"
#include "server/validate_session.h"

namespace sluice {
namespace {

// Bytes that a list's answer needs beside the sessions: the page token.
constexpr size_t kListSlack = 1024;

}  // namespace

CallRecord SessionService::Record(Method method, grpc::CallbackServerContext* context) const {
  return {.method = method, .started = parts_.clock->Now(), .span = StartSpan(context)};
}

absl::StatusOr<TenantRef> SessionService::Caller(const grpc::CallbackServerContext& context,
                                                 CallRecord* call) const {
  parts_.early_calls->Arrive(context);
  absl::StatusOr<TenantRef> tenant = parts_.auth->TenantOf(context);
  if (!tenant.ok()) return tenant;
  call->connection = BeginConnectionCall(parts_.listener, context);
  if (!bounds_.sessions) return NoSessions("");
  if (draining_.load(std::memory_order_relaxed)) return ShuttingDown();
  return tenant;
}

template <typename Query, typename Result>
grpc::ServerUnaryReactor* SessionService::Answer(
    grpc::CallbackServerContext* context, Method method,
    std::function<absl::StatusOr<Query>(const std::string& tenant)> parse,
    std::function<void(Sessions&, const std::string& tenant, const Query&, Done<Result>)> act,
    std::function<void(const std::string& tenant, const Query&, const Result&)> fill) {
  grpc::ServerUnaryReactor* reactor = context->DefaultReactor();
  CallRecord call = Record(method, context);
  const absl::StatusOr<TenantRef> caller = Caller(*context, &call);
  const auto finish = [this, reactor, call](const absl::Status& status) {
    reactor->Finish(EndOf(parts_, call, status));
  };
  const std::string tenant = caller.ok() ? (*caller)->name : "";
  absl::StatusOr<Query> query = caller.ok() ? parse(tenant) : caller.status();
  if (!query.ok()) {
    finish(query.status());
    return reactor;
  }
  Done<Result> done = OnAnswers<Result>(parts_, [finish, fill = std::move(fill), tenant,
                                                 query = *query](absl::StatusOr<Result> result) {
    if (result.ok()) fill(tenant, query, *result);
    finish(result.status());
  });
  const bool posted = parts_.device->Post(
      [act = std::move(act), tenant, query = *std::move(query),
       done = std::move(done)](Sessions& sessions) { act(sessions, tenant, query, done); });
  if (!posted) finish(ShuttingDown());
  return reactor;
}

namespace {

// Puts the session into the response, which is what most calls answer.
template <typename Query>
std::function<void(const std::string&, const Query&, const SessionInfo&)> Into(
    v1::Session* response) {
  return [response](const std::string&, const Query&, const SessionInfo& session) {
    ToProto(session, response);
  };
}

}  // namespace

grpc::ServerUnaryReactor* SessionService::CreateSession(grpc::CallbackServerContext* context,
                                                        const v1::CreateSessionRequest* message,
                                                        v1::Session* response) {
  return Answer<SessionSettings, SessionInfo>(
      context, Method::kCreateSession,
      [this, message](const auto&) { return ParseCreate(*message, bounds_); },
      [](Sessions& sessions, const std::string& tenant, const SessionSettings& settings,
         Done<SessionInfo> done) { sessions.Create(tenant, settings, std::move(done)); },
      Into<SessionSettings>(response));
}

grpc::ServerUnaryReactor* SessionService::GetSession(grpc::CallbackServerContext* context,
                                                     const v1::GetSessionRequest* message,
                                                     v1::Session* response) {
  return Answer<NamedSession, SessionInfo>(
      context, Method::kGetSession, [message](const auto&) { return ParseGet(*message); },
      [](Sessions& sessions, const std::string& tenant, const NamedSession& named,
         Done<SessionInfo> done) { sessions.Get(tenant, named.id, std::move(done)); },
      Into<NamedSession>(response));
}

grpc::ServerUnaryReactor* SessionService::ListSessions(grpc::CallbackServerContext* context,
                                                       const v1::ListSessionsRequest* message,
                                                       v1::ListSessionsResponse* response) {
  return Answer<ListQuery, SessionPage>(
      context, Method::kListSessions,
      [message](const std::string& tenant) { return ParseList(*message, tenant); },
      [](Sessions& sessions, const std::string& tenant, const ListQuery& query,
         Done<SessionPage> done) {
        sessions.List(tenant, query.page_size, query.after_id, query.labels, std::move(done));
      },
      [this, response](const std::string& tenant, const ListQuery& query, const SessionPage& page) {
        std::string next = page.next_after;
        size_t bytes = kListSlack;
        for (const SessionInfo& session : page.sessions) {
          v1::Session* out = response->add_sessions();
          ToProto(session, out);
          bytes += out->ByteSizeLong() + 8;
          if (bytes <= static_cast<size_t>(bounds_.max_message_bytes)) continue;
          // Labels can make a page larger than a message: the rest is on the next one.
          response->mutable_sessions()->RemoveLast();
          next = response->sessions().rbegin()->id();
          break;
        }
        if (!next.empty()) response->set_next_page_token(PageToken(tenant, query.labels, next));
      });
}

grpc::ServerUnaryReactor* SessionService::UpdateSession(grpc::CallbackServerContext* context,
                                                        const v1::UpdateSessionRequest* message,
                                                        v1::Session* response) {
  return Answer<UpdateQuery, SessionInfo>(
      context, Method::kUpdateSession, [message](const auto&) { return ParseUpdate(*message); },
      [](Sessions& sessions, const std::string& tenant, const UpdateQuery& query,
         Done<SessionInfo> done) {
        sessions.Update(tenant, query.session.id, query.session.etag, query.change,
                        std::move(done));
      },
      Into<UpdateQuery>(response));
}

grpc::ServerUnaryReactor* SessionService::ForkSession(grpc::CallbackServerContext* context,
                                                      const v1::ForkSessionRequest* message,
                                                      v1::Session* response) {
  return Answer<ForkQuery, SessionInfo>(
      context, Method::kForkSession, [message](const auto&) { return ParseFork(*message); },
      [](Sessions& sessions, const std::string& tenant, const ForkQuery& query,
         Done<SessionInfo> done) {
        sessions.Fork(tenant, query.session.id, query.session.etag, query.settings,
                      std::move(done));
      },
      Into<ForkQuery>(response));
}

grpc::ServerUnaryReactor* SessionService::DeleteSession(grpc::CallbackServerContext* context,
                                                        const v1::DeleteSessionRequest* message,
                                                        google::protobuf::Empty*) {
  return Answer<NamedSession, bool>(
      context, Method::kDeleteSession, [message](const auto&) { return ParseDelete(*message); },
      [](Sessions& sessions, const std::string& tenant, const NamedSession& named,
         const Done<bool>& done) {
        sessions.Delete(tenant, named.id, named.etag, [done](absl::Status status) {
          done(status.ok() ? absl::StatusOr<bool>(true) : std::move(status));
        });
      },
      [](const std::string&, const NamedSession&, const bool&) {});
}

grpc::ServerWriteReactor<v1::ExportSessionResponse>* SessionService::ExportSession(
    grpc::CallbackServerContext* context, const v1::ExportSessionRequest* message) {
  CallRecord call = Record(Method::kExportSession, context);
  const absl::StatusOr<TenantRef> tenant = Caller(*context, &call);
  return StartExport(parts_, tenant, std::move(call),
                     tenant.ok() ? ParseExport(*message) : tenant.status());
}

grpc::ServerReadReactor<v1::ImportSessionRequest>* SessionService::ImportSession(
    grpc::CallbackServerContext* context, v1::Session* response) {
  CallRecord call = Record(Method::kImportSession, context);
  const absl::StatusOr<TenantRef> tenant = Caller(*context, &call);
  return StartImport(parts_, tenant, std::move(call), context, bounds_.vocab_size, &imports_,
                     response);
}

}  // namespace sluice
