#include "server/core/trace_context.h"

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// VERSION-TRACE-PARENT-FLAGS
constexpr size_t kTraceAt = 3, kParentAt = 36, kFlagsAt = 53, kLength = 55;
constexpr uint64_t kSampled = 1;

// Exactly `text`, in lower case: capitals make the header invalid.
std::optional<uint64_t> ParseHex(absl::string_view text) {
  uint64_t value = 0;
  for (const char c : text) {
    if (c >= '0' && c <= '9') {
      value = value << 4 | static_cast<uint64_t>(c - '0');
    } else if (c >= 'a' && c <= 'f') {
      value = value << 4 | static_cast<uint64_t>(c - 'a' + 10);
    } else {
      return std::nullopt;
    }
  }
  return value;
}

std::string Hex(uint64_t value) { return absl::StrCat(absl::Hex(value, absl::kZeroPad16)); }

}  // namespace

std::string TraceSpan::TraceId() const { return Hex(trace_id[0]) + Hex(trace_id[1]); }
std::string TraceSpan::ParentId() const { return Hex(parent_id); }
std::string TraceSpan::SpanId() const { return Hex(span_id); }

std::string TraceSpan::Header() const {
  // Flags that we do not know are not ours to pass on.
  return absl::StrCat("00-", TraceId(), "-", SpanId(), sampled ? "-01" : "-00");
}

std::optional<TraceSpan> ParseTraceparent(absl::string_view header) {
  if (header.size() < kLength) return std::nullopt;
  if (header[kTraceAt - 1] != '-' || header[kParentAt - 1] != '-' || header[kFlagsAt - 1] != '-')
    return std::nullopt;
  const std::optional<uint64_t> version = ParseHex(header.substr(0, 2));
  const std::optional<uint64_t> high = ParseHex(header.substr(kTraceAt, 16));
  const std::optional<uint64_t> low = ParseHex(header.substr(kTraceAt + 16, 16));
  const std::optional<uint64_t> parent = ParseHex(header.substr(kParentAt, 16));
  const std::optional<uint64_t> flags = ParseHex(header.substr(kFlagsAt, 2));
  if (!version || !high || !low || !parent || !flags || *version == 0xff) return std::nullopt;
  // Only a later version may have more, behind another dash.
  if (header.size() > kLength && (*version == 0 || header[kLength] != '-')) return std::nullopt;
  TraceSpan span;
  span.trace_id = {*high, *low};
  span.parent_id = *parent;
  span.sampled = (*flags & kSampled) != 0;
  if (!span.traced() || span.parent_id == 0) return std::nullopt;
  return span;
}

}  // namespace sluice
