// Checks that several messages share. Internal to the validate files.
#ifndef SLUICE_SERVER_VALIDATE_FIELDS_H_
#define SLUICE_SERVER_VALIDATE_FIELDS_H_

#include <optional>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/duration.pb.h"
#include "server/status.h"

namespace sluice {

// True if `id` is empty or matches [A-Za-z0-9_-]{1,64}.
bool IsSessionId(absl::string_view id);
void CheckSessionId(absl::string_view field, absl::string_view id, FieldViolations* violations);
void CheckRequiredSessionId(absl::string_view field, absl::string_view id,
                            FieldViolations* violations);

// An etag as the engine compares it: what no session can have becomes one that none has, and is
// never echoed.
std::string ParseEtag(const std::string& etag);

// A duration above 0.
std::optional<absl::Duration> ParsePositive(absl::string_view field,
                                            const google::protobuf::Duration& message,
                                            FieldViolations* violations);

// UNIMPLEMENTED: a daemon that was told to have none.
absl::Status NoSessions(absl::string_view what);

}  // namespace sluice

#endif  // SLUICE_SERVER_VALIDATE_FIELDS_H_
