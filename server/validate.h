// Messages of the API to what the engine takes. The only place where the bounds of a request are
// checked: what comes out of here is legal in every field.
//
// Pure: no clock, no randomness, no state. Errors are INVALID_ARGUMENT with google.rpc.BadRequest
// naming each field, NOT_FOUND for another model, UNIMPLEMENTED for sessions where there are none,
// FAILED_PRECONDITION for `durable` without a directory.
#ifndef SLUICE_SERVER_VALIDATE_H_
#define SLUICE_SERVER_VALIDATE_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/request.h"
#include "engine/tokenizer/tokenizer.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/score.pb.h"
#include "sluice/v1/tokens.pb.h"

namespace sluice {

// The operator's limits and the model's facts that a request is checked against.
struct RequestBounds {
  std::string model_name;
  int32_t vocab_size = 0;
  std::vector<int32_t> eos_token_ids;
  int64_t max_prompt_tokens = 1048576;
  int32_t max_new_tokens = 1048576;
  int32_t max_sequences = 64;
  int32_t max_stop_strings = 16;
  int32_t max_logprobs = 20;
  int64_t max_message_bytes = 4194304;
  bool sessions = true;           // there are some at all
  bool durable_sessions = false;  // and a directory for them
};

// `seed` is used where the request names none. The deadline is left to the caller.
absl::StatusOr<Request> ParseGenerate(const v1::GenerateRequest& message,
                                      const RequestBounds& bounds, const Tokenizer& tokenizer,
                                      uint64_t seed);
absl::StatusOr<Request> ParseScore(const v1::ScoreRequest& message, const RequestBounds& bounds,
                                   const Tokenizer& tokenizer);

// The answers of the two calls that need no device. RESOURCE_EXHAUSTED when the answer is above
// max_message_bytes.
absl::Status Tokenize(const v1::TokenizeRequest& message, const RequestBounds& bounds,
                      const Tokenizer& tokenizer, v1::TokenizeResponse* response);
absl::Status Detokenize(const v1::DetokenizeRequest& message, const RequestBounds& bounds,
                        const Tokenizer& tokenizer, v1::DetokenizeResponse* response);

// NOT_FOUND unless `name` is empty or the loaded model's.
absl::Status CheckModelName(absl::string_view name, const RequestBounds& bounds);

// True if `id` may be a caller's request_id: up to 128 bytes of printable ASCII.
bool IsRequestId(absl::string_view id);

}  // namespace sluice

#endif  // SLUICE_SERVER_VALIDATE_H_
