// The session that a completion or a chat goes on from: the header x-session-id, or the field
// `session`, which is its id or an object {id, etag, durable, on_conflict, commit}.
#ifndef SLUICE_SERVER_HTTP_OPENAI_SESSION_H_
#define SLUICE_SERVER_HTTP_OPENAI_SESSION_H_

#include <memory>
#include <nlohmann/json.hpp>

#include "absl/status/status.h"
#include "server/auth_table.h"
#include "server/call_stats.h"
#include "server/http/http_exchange.h"
#include "server/http/openai_call.h"
#include "server/http/openai_request.h"
#include "server/session_calls.h"
#include "server/status.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

// The body's field `session`, if it has one; the rules of server/validate.h are left to it. Pure.
void TakeSession(const nlohmann::json& body, FieldViolations* violations, v1::GenerateRequest* out);

// The same for the headers x-session-id and If-Match, which must not contradict the body.
// INVALID_ARGUMENT too for several prompts that would all move one session on. Pure.
absl::Status TakeSessionHeaders(const HttpHead& head, OpenAiRequest* request);

// A request with a session: looks it up, has a chat go on from what it remembers of the chat, makes
// it where there is none, and starts the call. A session is not made for a call that only reads it,
// names its etag, or has faults. What the pointers refer to outlives the call. Any thread.
void StartOnSession(const OpenAiParts* parts, const SessionCalls* sessions,
                    const std::shared_ptr<HttpExchange>& exchange, const TenantRef& tenant,
                    const ChatTemplate& chat_template, OpenAiRequest request,
                    const CallRecord& record);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_SESSION_H_
