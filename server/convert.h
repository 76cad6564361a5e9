// The engine's events as messages of the API. One event can become several messages, so that each
// stays below what any client takes.
#ifndef SLUICE_SERVER_CONVERT_H_
#define SLUICE_SERVER_CONVERT_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "engine/token_sink.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/score.pb.h"
#include "sluice/v1/session.pb.h"

namespace sluice {

// Bounds the text, ids and log-probabilities in one message, far below the 4 MiB that clients take
// by default.
inline constexpr size_t kMaxEventBytes = 256 * 1024;

void ToProto(const SessionInfo& session, v1::Session* out);

// Turns a Generate stream's events into its messages, in order. Numbers them.
class GenerateConverter {
 public:
  using Response = v1::GenerateResponse;

  explicit GenerateConverter(std::string request_id, size_t max_bytes = kMaxEventBytes)
      : request_id_(std::move(request_id)), max_bytes_(max_bytes) {}

  std::vector<Response> Convert(std::vector<TokenEvent> events);

 private:
  std::string request_id_;
  size_t max_bytes_;
  uint64_t next_number_ = 0;
};

// Does the same for a Score stream, which has neither numbers nor a Started.
class ScoreConverter {
 public:
  using Response = v1::ScoreResponse;

  explicit ScoreConverter(size_t max_bytes = kMaxEventBytes) : max_bytes_(max_bytes) {}

  std::vector<Response> Convert(std::vector<TokenEvent> events);

 private:
  size_t max_bytes_;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_CONVERT_H_
