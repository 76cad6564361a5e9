// Records each call: a count by method and code, and one line in the log.
#ifndef SLUICE_SERVER_CALL_STATS_H_
#define SLUICE_SERVER_CALL_STATS_H_

#include <grpcpp/support/status.h>

#include <array>
#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/time/time.h"
#include "engine/stats.h"
#include "server/connection_call.h"
#include "server/core/trace_context.h"

namespace sluice {

// Every method that is counted: a fixed set, so that clients cannot make series.
enum class Method : uint8_t {
  kGenerate,
  kScore,
  kTokenize,
  kDetokenize,
  kGetModel,
  kCreateSession,
  kGetSession,
  kListSessions,
  kUpdateSession,
  kForkSession,
  kDeleteSession,
  kExportSession,
  kImportSession,
  kHealthCheck,
  kHealthWatch,
  kCompletions,
  kChatCompletions,
  kModels
};
inline constexpr size_t kNumMethods = 18;
inline constexpr size_t kNumGrpcCodes = 17;

struct MethodName {
  const char* service;
  const char* method;
};
MethodName NameOf(Method method);
// "OK", "CANCELLED", ...
const char* CodeName(size_t code);

// One call of the API, as far as it is known.
struct CallRecord {
  Method method = Method::kGenerate;
  std::string request_id{};  // empty for methods without one
  absl::Duration started{};  // on the daemon's clock
  TraceSpan span{};          // in no trace unless the caller says
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;  // of sequences that finished
  absl::Duration time_to_first_token{};
  ConnectionCall connection{};  // of a caller who may call
};

// Any thread.
class CallStats {
 public:
  // Counts the call and writes its line.
  void Done(const CallRecord& call, grpc::StatusCode code, absl::Duration now);

  // From a call's start to its end, whatever its code.
  const Histogram& seconds(Method method) const { return seconds_[static_cast<size_t>(method)]; }
  uint64_t handled(Method method, size_t code) const {
    return handled_[static_cast<size_t>(method)][code].value();
  }

 private:
  struct Seconds : Histogram {
    Seconds() : Histogram(kLatencyBounds) {}
  };

  std::array<std::array<Counter, kNumGrpcCodes>, kNumMethods> handled_;
  std::array<Seconds, kNumMethods> seconds_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CALL_STATS_H_
