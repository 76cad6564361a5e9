#include "client/call.h"

#include <algorithm>
#include <string>

#include "absl/strings/ascii.h"

namespace sluice {
namespace {

constexpr char kAffinityKey[] = "x-sluice-affinity";
constexpr size_t kMaxAffinityBytes = 64;
constexpr char kTraceparentKey[] = "traceparent";
constexpr size_t kMaxTraceparentBytes = 256;

// gRPC would abort the call over any other text, which the daemon refuses by name.
bool IsAffinity(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxAffinityBytes &&
         std::all_of(text.begin(), text.end(), [](char c) {
           return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '_' || c == '-';
         });
}

// The same holds here. The daemon decides what it makes of the header.
bool IsTraceparent(absl::string_view text) {
  return !text.empty() && text.size() <= kMaxTraceparentBytes &&
         std::all_of(text.begin(), text.end(), [](char c) { return c > ' ' && c <= '~'; });
}

}  // namespace

Call::Call(const CallOptions& options, absl::string_view session_id)
    : scope_(options.cancellation, [this] { context_.TryCancel(); }) {
  if (options.timeout != absl::InfiniteDuration()) {
    context_.set_deadline(absl::ToChronoTime(absl::Now() + options.timeout));
  }
  const absl::string_view affinity = options.affinity.empty() ? session_id : options.affinity;
  if (IsAffinity(affinity)) context_.AddMetadata(kAffinityKey, std::string(affinity));
  if (IsTraceparent(options.traceparent)) {
    context_.AddMetadata(kTraceparentKey, options.traceparent);
  }
}

}  // namespace sluice
