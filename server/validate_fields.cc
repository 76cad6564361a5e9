#include "server/validate_fields.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr size_t kMaxSessionIdBytes = 64;
constexpr char kNoEtag[] = "something-else";

}  // namespace

bool IsSessionId(absl::string_view id) {
  return id.size() <= kMaxSessionIdBytes && std::all_of(id.begin(), id.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
         });
}

void CheckSessionId(absl::string_view field, absl::string_view id, FieldViolations* violations) {
  if (!IsSessionId(id)) violations->Add(field, "must match [A-Za-z0-9_-]{1,64}");
}

void CheckRequiredSessionId(absl::string_view field, absl::string_view id,
                            FieldViolations* violations) {
  if (id.empty()) {
    violations->Add(field, "is required");
  } else {
    CheckSessionId(field, id, violations);
  }
}

std::string ParseEtag(const std::string& etag) { return IsSessionId(etag) ? etag : kNoEtag; }

std::optional<absl::Duration> ParsePositive(absl::string_view field,
                                            const google::protobuf::Duration& message,
                                            FieldViolations* violations) {
  constexpr int64_t kMaxSeconds = 315576000000;  // of google.protobuf.Duration
  const absl::Duration duration =
      absl::Seconds(message.seconds()) + absl::Nanoseconds(message.nanos());
  if (message.seconds() >= 0 && message.seconds() <= kMaxSeconds && message.nanos() >= 0 &&
      message.nanos() < 1000000000 && duration > absl::ZeroDuration()) {
    return duration;
  }
  violations->Add(field, "must be above 0, with nanos in [0, 999999999]");
  return std::nullopt;
}

absl::Status NoSessions(absl::string_view what) {
  return WithReason(absl::UnimplementedError(absl::StrCat(what, "this daemon has no sessions")),
                    "SESSIONS_NOT_SUPPORTED");
}

}  // namespace sluice
