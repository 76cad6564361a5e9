#include "server/http/openai_session.h"

#include <functional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "server/http/session_json.h"
#include "server/start_call.h"
#include "server/validate.h"
#include "server/validate_fields.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr char kSessionId[] = "x-session-id";
// Encoding more than this takes long enough for other calls to notice.
constexpr size_t kInlineBytes = 64 * 1024;

bool TakeConflict(const std::string& name, v1::GenerateRequest* out) {
  if (name == "fail") {
    out->set_on_conflict(v1::CONFLICT_POLICY_FAIL);
  } else if (name == "wait") {
    out->set_on_conflict(v1::CONFLICT_POLICY_WAIT);
  } else if (name == "cancel_running") {
    out->set_on_conflict(v1::CONFLICT_POLICY_CANCEL_RUNNING);
  } else {
    return false;
  }
  return true;
}

bool TakeCommit(const std::string& name, v1::GenerateRequest* out) {
  if (name == "on_success") {
    out->set_commit_policy(v1::COMMIT_POLICY_ON_SUCCESS);
  } else if (name == "never") {
    out->set_commit_policy(v1::COMMIT_POLICY_NEVER);
  } else {
    return false;
  }
  return true;
}

// One field of the object; why it is wrong, or null.
const char* TakeField(const std::string& name, const Json& value, v1::GenerateRequest* out) {
  const std::string text = value.is_string() ? value.get<std::string>() : "";
  if (name == "id" || name == "etag") {
    if (!value.is_string()) return "must be a string";
    (name == "id" ? out->mutable_session_id() : out->mutable_etag())->assign(text);
  } else if (name == "durable") {
    if (!value.is_boolean()) return "must be true or false";
    out->set_durable(value.get<bool>());
  } else if (name == "on_conflict") {
    if (!TakeConflict(text, out)) return "must be \"fail\", \"wait\" or \"cancel_running\"";
  } else if (name == "commit") {
    if (!TakeCommit(text, out)) return "must be \"on_success\" or \"never\"";
  } else {
    return "is not a field of a session";
  }
  return nullptr;
}

absl::Status Fault(const std::string& field, const std::string& why) {
  FieldViolations violations;
  violations.Add(field, why);
  return violations.ToStatus();
}

// A call on a session whose state of affairs is being looked up.
class SessionStart : public std::enable_shared_from_this<SessionStart> {
 public:
  SessionStart(const OpenAiParts* parts, const SessionCalls* sessions,
               std::shared_ptr<HttpExchange> exchange, TenantRef tenant,
               const ChatTemplate& chat_template, OpenAiRequest request, CallRecord record)
      : parts_(parts),
        sessions_(sessions),
        exchange_(std::move(exchange)),
        tenant_(std::move(tenant)),
        chat_template_(chat_template),
        request_(std::move(request)),
        record_(std::move(record)) {}

  void Look() {
    v1::GetSessionRequest get;
    get.set_id(first().session_id());
    sessions_->Look(tenant_->name, get, [self = shared_from_this()](auto session) {
      self->Posted([self, session = std::move(session)] { self->Found(session); });
    });
  }

 private:
  const v1::GenerateRequest& first() const { return request_.prompts.front(); }

  // Large texts are encoded elsewhere than on the thread that every session's answer comes from.
  void Posted(const std::function<void()>& work) {
    size_t bytes = 0;
    for (const v1::GenerateRequest& prompt : request_.prompts) bytes += prompt.text().size();
    if (bytes <= kInlineBytes) return work();
    if (parts_->core.worker->Post(work)) return;
    Refuse(absl::ResourceExhaustedError("too many large texts wait to be encoded"));
  }

  void Found(const absl::StatusOr<SessionInfo>& session) {
    if (session.ok()) return Start(*session);
    const bool makes = absl::IsNotFound(session.status()) && first().etag().empty() &&
                       first().commit_policy() != v1::COMMIT_POLICY_NEVER;
    if (!makes) return Refuse(session.status());
    const absl::Status faults = OpenAiCall::Check(*parts_, request_);
    if (!faults.ok()) return Refuse(faults);
    v1::CreateSessionRequest create;
    create.mutable_options()->set_id(first().session_id());
    sessions_->Create(tenant_->name, create, [self = shared_from_this()](const auto& made) {
      // Another first call may have been quicker.
      if (made.ok() || absl::IsAlreadyExists(made.status())) return self->Look();
      self->Refuse(made.status());
    });
  }

  void Start(const SessionInfo& session) {
    const std::string asked(exchange_->head().Find("x-request-id"));
    if (!asked.empty() && asked == session.last_request_id) {
      return Refuse(WithReason(
          absl::AbortedError(absl::StrCat("the session has committed the call of this "
                                          "x-request-id already: its etag is ",
                                          session.etag, ", its position ", session.position)),
          "ALREADY_COMMITTED"));
    }
    request_.session = AnswerSession{
        .id = session.id, .etag = session.etag, .position = session.position, .committed = false};
    if (request_.chat) {
      absl::StatusOr<ChatTurn> turn =
          PlanTurn(chat_template_, request_.messages, session.position, session.note);
      if (!turn.ok()) return Refuse(turn.status());
      request_.prompts.front().set_text(std::move(turn->text));
      request_.turn = *std::move(turn);
    }
    OpenAiCall::Start(parts_, exchange_, tenant_, request_, record_);
  }

  void Refuse(const absl::Status& status) {
    RefuseCall(parts_->core, exchange_.get(), record_, status, request_.chat);
  }

  const OpenAiParts* const parts_;
  const SessionCalls* const sessions_;
  const std::shared_ptr<HttpExchange> exchange_;
  const TenantRef tenant_;
  const ChatTemplate& chat_template_;
  OpenAiRequest request_;
  const CallRecord record_;
};

}  // namespace

void TakeSession(const Json& body, FieldViolations* violations, v1::GenerateRequest* out) {
  const auto session = body.find("session");
  if (session == body.end() || session->is_null()) return;
  if (session->is_string()) {
    out->set_session_id(session->get<std::string>());
    if (out->session_id().empty()) violations->Add("session", "must match [A-Za-z0-9_-]{1,64}");
    return;
  }
  if (!session->is_object()) {
    return violations->Add("session", "must be a session's id, or an object with it");
  }
  for (auto it = session->begin(); it != session->end(); ++it) {
    if (it.value().is_null()) continue;
    const char* why = TakeField(it.key(), it.value(), out);
    if (why != nullptr) violations->Add(absl::StrCat("session.", it.key()), why);
  }
}

absl::Status TakeSessionHeaders(const HttpHead& head, OpenAiRequest* request) {
  const std::vector<absl::string_view> ids = head.FindAll(kSessionId);
  if (ids.size() > 1) return Fault(kSessionId, "must be given once");
  const v1::GenerateRequest& first = request->prompts.front();
  std::string id = first.session_id();
  if (!ids.empty()) {
    if (!id.empty() && id != ids[0]) return Fault("session", "is not the one of x-session-id");
    id = std::string(ids[0]);
    if (id.empty() || !IsSessionId(id)) return Fault(kSessionId, "must match [A-Za-z0-9_-]{1,64}");
  }
  if (id.empty()) return absl::OkStatus();
  if (!IsSessionId(id)) return Fault("session", "must match [A-Za-z0-9_-]{1,64}");
  const absl::StatusOr<std::string> etag = EtagOf(head, first.etag());
  if (!etag.ok()) return etag.status();
  const bool commits = first.commit_policy() != v1::COMMIT_POLICY_NEVER;
  if (commits && request->prompts.size() > 1) {
    return Fault("prompt", "has several prompts, with a session that needs commit \"never\"");
  }
  if (commits && first.n() > 1) {
    return Fault("n",
                 absl::StrCat("is ", first.n(), ", with a session that needs commit \"never\""));
  }
  if (!commits && first.durable()) {
    return Fault("session.durable", "has no meaning with commit \"never\"");
  }
  for (v1::GenerateRequest& prompt : request->prompts) {
    prompt.set_session_id(id);
    prompt.set_etag(*etag);
  }
  return absl::OkStatus();
}

void StartOnSession(const OpenAiParts* parts, const SessionCalls* sessions,
                    const std::shared_ptr<HttpExchange>& exchange, const TenantRef& tenant,
                    const ChatTemplate& chat_template, OpenAiRequest request,
                    const CallRecord& record) {
  const absl::Status offered = sessions->Offered();
  if (!offered.ok()) {
    return RefuseCall(parts->core, exchange.get(), record, offered, request.chat);
  }
  std::make_shared<SessionStart>(parts, sessions, exchange, tenant, chat_template,
                                 std::move(request), record)
      ->Look();
}

}  // namespace sluice
