#include "server/trace.h"

#include <iterator>
#include <optional>

#include "server/start_call.h"

namespace sluice {

TraceSpan StartSpan(absl::string_view traceparent) {
  std::optional<TraceSpan> span = ParseTraceparent(traceparent);
  if (!span) return TraceSpan();
  while (span->span_id == 0) span->span_id = RandomBits();
  return *span;
}

TraceSpan StartSpan(grpc::CallbackServerContext* context) {
  const auto& metadata = context->client_metadata();
  const auto [first, last] = metadata.equal_range(kTraceparent);
  if (first == last || std::next(first) != last) return TraceSpan();
  const TraceSpan span = StartSpan(absl::string_view(first->second.data(), first->second.size()));
  if (span.traced()) context->AddTrailingMetadata(kTraceparent, span.Header());
  return span;
}

}  // namespace sluice
