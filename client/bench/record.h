// The observations of one request.
#ifndef SLUICE_CLIENT_BENCH_RECORD_H_
#define SLUICE_CLIENT_BENCH_RECORD_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/time/time.h"

namespace sluice {

enum class Outcome : uint8_t {
  kOk,
  kRejected,  // RESOURCE_EXHAUSTED: the daemon had no room, and said so
  kFailed,
  kCutOff,  // by the end of the run or by Ctrl-C: neither good nor bad
};

// A message with tokens.
struct TokenMessage {
  absl::Duration at;
  int32_t tokens = 0;
};

// Times count from the start of the measured part of the run: what was due before it, in the
// warm-up, is negative.
struct RequestRecord {
  int64_t index = 0;
  int32_t turn = 0;     // of its session; 0 without one
  absl::Duration due;   // when the load wanted it sent: latencies count from here
  absl::Duration sent;  // when it was; an overloaded client is late
  absl::Duration ended;
  Outcome outcome = Outcome::kFailed;
  absl::StatusCode code = absl::StatusCode::kOk;
  std::string error;          // one line; empty when ok
  int64_t prompt_tokens = 0;  // 0: it was not admitted
  int64_t reused_tokens = 0;  // of those, what the daemon had cached
  absl::Duration queued;      // on the daemon's own account, when it finished
  std::vector<TokenMessage> messages;

  bool measured() const { return due >= absl::ZeroDuration(); }
  int64_t new_tokens() const {
    int64_t tokens = 0;
    for (const TokenMessage& message : messages) tokens += message.tokens;
    return tokens;
  }
  // From `due` to the first message with tokens; infinite when none came.
  absl::Duration first_token() const {
    return messages.empty() ? absl::InfiniteDuration() : messages.front().at - due;
  }
  // Mean time of a token after those of the first message; zero when there is none.
  absl::Duration inter_token() const {
    if (messages.size() < 2) return absl::ZeroDuration();
    return (messages.back().at - messages.front().at) / (new_tokens() - messages.front().tokens);
  }
  absl::Duration whole() const { return ended - due; }
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_RECORD_H_
