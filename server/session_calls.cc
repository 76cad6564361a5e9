#include "server/session_calls.h"

#include <utility>

#include "absl/memory/memory.h"
#include "kernels/check.h"
#include "server/convert.h"
#include "server/session_call.h"
#include "server/status.h"
#include "server/validate_fields.h"

namespace sluice {
namespace {

// Bytes that a list's answer needs beside the sessions: the page token.
constexpr size_t kListSlack = 1024;
// Each import holds a state's numbers in memory that no budget counts.
constexpr int kMaxImports = 16;

absl::Status NoKey() {
  return WithReason(absl::FailedPreconditionError(
                        "this daemon has no state key (--state_key_file) to sign states with"),
                    "NO_STATE_KEY");
}

}  // namespace

absl::Status SessionCalls::Offered() const {
  return bounds_.sessions ? absl::OkStatus() : NoSessions("");
}

template <typename T>
Done<T> SessionCalls::OnAnswers(Done<T> done) const {
  return [answers = parts_.answers, done = std::move(done)](absl::StatusOr<T> result) {
    const bool posted =
        answers->Post([done, result = std::move(result)]() mutable { done(std::move(result)); });
    SLUICE_CHECK(posted);
  };
}

template <typename Query, typename Result>
void SessionCalls::Run(absl::StatusOr<Query> query,
                       std::function<void(Sessions&, const Query&)> act,
                       const Done<Result>& done) const {
  if (!query.ok()) return done(query.status());
  const bool posted = parts_.device->Post([act = std::move(act), query = *std::move(query)](
                                              Sessions& sessions) { act(sessions, query); });
  if (!posted) done(ShuttingDown());
}

Done<SessionInfo> SessionCalls::AsMessage(Done<v1::Session> done) const {
  return OnAnswers<SessionInfo>([done = std::move(done)](absl::StatusOr<SessionInfo> session) {
    if (!session.ok()) return done(session.status());
    v1::Session message;
    ToProto(*session, &message);
    done(std::move(message));
  });
}

void SessionCalls::Create(const std::string& tenant, const v1::CreateSessionRequest& message,
                          Done<v1::Session> done) const {
  Run<SessionSettings, v1::Session>(
      ParseCreate(message, bounds_),
      [tenant, answer = AsMessage(done)](Sessions& sessions, const SessionSettings& settings) {
        sessions.Create(tenant, settings, answer);
      },
      done);
}

void SessionCalls::Get(const std::string& tenant, const v1::GetSessionRequest& message,
                       Done<v1::Session> done) const {
  Run<NamedSession, v1::Session>(
      ParseGet(message),
      [tenant, answer = AsMessage(done)](Sessions& sessions, const NamedSession& named) {
        sessions.Get(tenant, named.id, answer);
      },
      done);
}

void SessionCalls::Look(const std::string& tenant, const v1::GetSessionRequest& message,
                        Done<SessionInfo> done) const {
  Run<NamedSession, SessionInfo>(
      ParseGet(message),
      [tenant, answer = OnAnswers(done)](Sessions& sessions, const NamedSession& named) {
        sessions.Get(tenant, named.id, answer);
      },
      done);
}

v1::ListSessionsResponse SessionCalls::ToMessage(const std::string& tenant, const ListQuery& query,
                                                 const SessionPage& page) const {
  v1::ListSessionsResponse out;
  std::string next = page.next_after;
  size_t bytes = kListSlack;
  for (const SessionInfo& session : page.sessions) {
    v1::Session* message = out.add_sessions();
    ToProto(session, message);
    bytes += message->ByteSizeLong() + 8;
    if (bytes <= static_cast<size_t>(bounds_.max_message_bytes)) continue;
    // Labels can make a page larger than a message: the rest is on the next one.
    out.mutable_sessions()->RemoveLast();
    next = out.sessions().rbegin()->id();
    break;
  }
  if (!next.empty()) out.set_next_page_token(PageToken(tenant, query.labels, next));
  return out;
}

void SessionCalls::List(const std::string& tenant, const v1::ListSessionsRequest& message,
                        Done<v1::ListSessionsResponse> done) const {
  Run<ListQuery, v1::ListSessionsResponse>(
      ParseList(message, tenant),
      [this, tenant, done](Sessions& sessions, const ListQuery& query) {
        Done<SessionPage> answer =
            OnAnswers<SessionPage>([this, tenant, query, done](absl::StatusOr<SessionPage> page) {
              if (!page.ok()) return done(page.status());
              done(ToMessage(tenant, query, *page));
            });
        sessions.List(tenant, query.page_size, query.after_id, query.labels, std::move(answer));
      },
      done);
}

void SessionCalls::Update(const std::string& tenant, const v1::UpdateSessionRequest& message,
                          Done<v1::Session> done) const {
  Run<UpdateQuery, v1::Session>(
      ParseUpdate(message),
      [tenant, answer = AsMessage(done)](Sessions& sessions, const UpdateQuery& query) {
        sessions.Update(tenant, query.session.id, query.session.etag, query.change, answer);
      },
      done);
}

void SessionCalls::Fork(const std::string& tenant, const v1::ForkSessionRequest& message,
                        Done<v1::Session> done) const {
  Run<ForkQuery, v1::Session>(
      ParseFork(message),
      [tenant, answer = AsMessage(done)](Sessions& sessions, const ForkQuery& query) {
        sessions.Fork(tenant, query.session.id, query.session.etag, query.settings, answer);
      },
      done);
}

void SessionCalls::Delete(const std::string& tenant, const v1::DeleteSessionRequest& message,
                          Done<google::protobuf::Empty> done) const {
  using Empty = google::protobuf::Empty;
  Run<NamedSession, Empty>(
      ParseDelete(message),
      [tenant, answer = OnAnswers<Empty>(done)](Sessions& sessions, const NamedSession& named) {
        sessions.Delete(tenant, named.id, named.etag, [answer](absl::Status status) {
          answer(status.ok() ? absl::StatusOr<Empty>(Empty()) : std::move(status));
        });
      },
      done);
}

void SessionCalls::Export(const std::string& tenant, const v1::ExportSessionRequest& message,
                          Done<ExportedState> done) const {
  absl::StatusOr<NamedSession> named = ParseExport(message);
  if (named.ok() && parts_.keys == nullptr) return done(NoKey());
  Run<NamedSession, ExportedState>(
      std::move(named),
      [tenant, answer = OnAnswers<ExportedState>(done)](Sessions& sessions,
                                                        const NamedSession& session) {
        sessions.Export(tenant, session.id, session.etag, answer);
      },
      done);
}

std::unique_ptr<BlobWriter> SessionCalls::NewBlob(const std::string& tenant,
                                                  const ExportedState& state) const {
  return std::make_unique<BlobWriter>(*parts_.keys, tenant, *parts_.spec, state.info, state.data);
}

absl::StatusOr<std::unique_ptr<SessionImport>> SessionCalls::StartImport(
    const std::string& tenant) {
  if (parts_.keys == nullptr) return NoKey();
  if (imports_.fetch_add(1) >= kMaxImports) {
    imports_.fetch_sub(1);
    return absl::ResourceExhaustedError("too many sessions are being imported");
  }
  return absl::WrapUnique(new SessionImport(this, tenant));
}

SessionImport::SessionImport(SessionCalls* calls, const std::string& tenant)
    : calls_(calls), tenant_(tenant), reader_(calls->parts_.keys, tenant, calls->parts_.spec) {}

SessionImport::~SessionImport() { calls_->imports_.fetch_sub(1); }

void SessionImport::Finish(const SessionSettings& settings, Done<v1::Session> done) {
  absl::StatusOr<BlobState> state = reader_.Finish();
  if (!state.ok()) return done(state.status());
  const int32_t last_token = state->info.last_token;
  if (state->info.position > 0 && (last_token < 0 || last_token >= calls_->bounds_.vocab_size)) {
    return done(absl::InvalidArgumentError("the state's last token is none of the model's"));
  }
  auto shared = std::make_shared<BlobState>(*std::move(state));
  const bool posted = calls_->parts_.device->Post(
      [tenant = tenant_, settings, shared, answer = calls_->AsMessage(done)](Sessions& sessions) {
        sessions.Import(tenant, settings, std::move(shared->info), std::move(shared->data), answer);
      });
  if (!posted) done(ShuttingDown());
}

}  // namespace sluice
