// W3C Trace Context (https://www.w3.org/TR/trace-context-1): where a call stands in its caller's
// trace.
#ifndef SLUICE_SERVER_CORE_TRACE_CONTEXT_H_
#define SLUICE_SERVER_CORE_TRACE_CONTEXT_H_

#include <array>
#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// The name in gRPC metadata and HTTP headers.
inline constexpr char kTraceparent[] = "traceparent";

// A call's span. Small, since every stream that waits has one.
struct TraceSpan {
  std::array<uint64_t, 2> trace_id{};  // high half first; both 0: the call is in no trace
  uint64_t parent_id = 0;              // the caller's span
  uint64_t span_id = 0;                // the call's own
  bool sampled = false;

  bool traced() const { return trace_id[0] != 0 || trace_id[1] != 0; }
  // In lower-case hex: 32, 16 and 16 digits.
  std::string TraceId() const;
  std::string ParentId() const;
  std::string SpanId() const;
  // The header that names this span as the parent, of version 00.
  std::string Header() const;
};

// The trace and the parent that `header` names; nullopt where the recommendation says that it
// counts as absent. A version above 00 is read as far as 00 goes.
std::optional<TraceSpan> ParseTraceparent(absl::string_view header);

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_TRACE_CONTEXT_H_
