// Sessions as the JSON of /v1/sessions, and requests about them as messages of our own API, which
// server/validate_session.h then checks: their bounds are there and nowhere else.
//
// A field that nobody knows is refused by name. A time to live is a number of seconds.
#ifndef SLUICE_SERVER_HTTP_SESSION_JSON_H_
#define SLUICE_SERVER_HTTP_SESSION_JSON_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/http/http_message.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

// An object of kind "session", with the fields of v1::Session; times are seconds of Unix time.
std::string SessionJson(const v1::Session& session);
std::string SessionListJson(const v1::ListSessionsResponse& page);
// What a deletion answers.
std::string DeletedSessionJson(absl::string_view id);

// Bodies; an empty one is {}. INVALID_ARGUMENT names the field. Pure, as all of the following.
absl::StatusOr<v1::CreateSessionRequest> ParseCreateSession(absl::string_view body);
// The session's id, and an etag that a header names, are left to the caller; one in the body is
// taken.
absl::StatusOr<v1::UpdateSessionRequest> ParseUpdateSession(absl::string_view body);
absl::StatusOr<v1::ForkSessionRequest> ParseForkSession(absl::string_view body);

// Queries: page_size, page_token and labels.KEY; id, affinity, ttl and labels.KEY.
absl::StatusOr<v1::ListSessionsRequest> ParseListSessions(absl::string_view target);
absl::StatusOr<v1::SessionOptions> ParseImportSession(absl::string_view target);
// OK for a target without a query.
absl::Status RefuseQuery(absl::string_view target);

// If-Match: one etag, with or without its quotes, or * for any (""). The body's `etag`, if it has
// one, must be the same.
absl::StatusOr<std::string> EtagOf(const HttpHead& head, const std::string& body_etag);
// An etag as a header has it.
std::string QuotedEtag(absl::string_view etag);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_SESSION_JSON_H_
