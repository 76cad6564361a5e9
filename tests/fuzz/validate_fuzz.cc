// Any bytes as a request of each kind: what is accepted obeys every bound the engine relies on, and
// what is refused has a status that reaches the client whole.
#include <cmath>
#include <cstdint>

#include "google/rpc/status.pb.h"
#include "kernels/check.h"
#include "server/status.h"
#include "server/validate.h"
#include "tests/fakes/fake_engine.h"

namespace sluice {
namespace {

constexpr size_t kTrailerBytes = 8000;

RequestBounds Bounds() {
  RequestBounds bounds;
  bounds.model_name = "m";
  bounds.vocab_size = 4096;
  bounds.max_prompt_tokens = 1000;
  bounds.max_message_bytes = 10000;
  return bounds;
}

void CheckRefusal(const absl::Status& status) {
  const grpc::Status sent = ToGrpcStatus(status);
  SLUICE_CHECK(sent.error_details().size() * 4 / 3 + sent.error_message().size() < kTrailerBytes);
  SLUICE_CHECK(absl::IsInvalidArgument(status) || absl::IsNotFound(status) ||
               absl::IsUnimplemented(status) || absl::IsFailedPrecondition(status) ||
               absl::IsResourceExhausted(status));
}

bool IsToken(int32_t id) { return id >= 0 && id < 4096; }

bool Within(float value, float min, float max) {
  return std::isfinite(value) && value >= min && value <= max;
}

void CheckAccepted(const Request& request) {
  // A session's history may be all there is to go on from; the engine looks whether it has one.
  SLUICE_CHECK(!request.prompt.empty() || !request.session_id.empty());
  for (const auto* prompt : {&request.prompt, &request.prompt_if_empty}) {
    SLUICE_CHECK(prompt->size() <= 1000);
    for (const int32_t id : *prompt) SLUICE_CHECK(IsToken(id));
  }
  for (const int32_t id : request.stop.token_ids) SLUICE_CHECK(IsToken(id));
  for (const TokenBias& bias : request.logit_bias)
    SLUICE_CHECK(IsToken(bias.token) && Within(bias.bias, -100, 100));
  for (const std::string& text : request.stop.strings)
    SLUICE_CHECK(!text.empty() && text.size() <= 256);
  SLUICE_CHECK(request.stop.strings.size() <= 16 && request.stop.token_ids.size() <= 64);
  SLUICE_CHECK(request.stop.max_new_tokens >= 0 && request.stop.max_new_tokens <= 1048576);
  SLUICE_CHECK(request.stop.min_new_tokens >= 0 &&
               request.stop.min_new_tokens <= request.stop.max_new_tokens);
  SLUICE_CHECK(request.stop.time_limit > absl::ZeroDuration());
  SLUICE_CHECK(request.n >= 1 && request.n <= 64);
  const SamplingConfig& sampling = request.sampling;
  SLUICE_CHECK(Within(sampling.temperature, 0, 100) && Within(sampling.min_p, 0, 1));
  SLUICE_CHECK(Within(sampling.top_p, 0, 1) && sampling.top_p > 0);
  SLUICE_CHECK(Within(sampling.typical_p, 0, 1) && sampling.typical_p > 0);
  SLUICE_CHECK(Within(sampling.repetition_penalty, 0, 100) && sampling.repetition_penalty > 0);
  SLUICE_CHECK(Within(sampling.presence_penalty, -100, 100) &&
               Within(sampling.frequency_penalty, -100, 100));
  SLUICE_CHECK(sampling.top_k >= 0 && sampling.top_k <= 4096);
  SLUICE_CHECK(request.output.logprobs >= -1 && request.output.logprobs <= kMaxAlternatives);
  SLUICE_CHECK(request.output.prompt_logprobs >= -1 &&
               request.output.prompt_logprobs <= kMaxAlternatives);
  SLUICE_CHECK(request.score_alternatives >= 0 && request.score_alternatives <= kMaxAlternatives);
}

template <typename Parsed>
void CheckParsed(const Parsed& parsed) {
  if (parsed.ok()) {
    CheckAccepted(*parsed);
  } else {
    CheckRefusal(parsed.status());
  }
}

}  // namespace
}  // namespace sluice

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace sluice;
  static const RequestBounds bounds = Bounds();
  const Tokenizer& tokenizer = BundledTokenizer();
  if (size == 0 || size > (1 << 16)) return 0;
  const int kind = data[0] % 4;
  ++data;
  const int length = static_cast<int>(size - 1);
  if (v1::GenerateRequest message; kind == 0 && message.ParseFromArray(data, length)) {
    CheckParsed(ParseGenerate(message, bounds, tokenizer, 1));
  }
  if (v1::ScoreRequest message; kind == 1 && message.ParseFromArray(data, length)) {
    CheckParsed(ParseScore(message, bounds, tokenizer));
  }
  if (v1::TokenizeRequest message; kind == 2 && message.ParseFromArray(data, length)) {
    v1::TokenizeResponse response;
    const absl::Status status = Tokenize(message, bounds, tokenizer, &response);
    if (!status.ok()) CheckRefusal(status);
  }
  if (v1::DetokenizeRequest message; kind == 3 && message.ParseFromArray(data, length)) {
    v1::DetokenizeResponse response;
    const absl::Status status = Detokenize(message, bounds, tokenizer, &response);
    if (!status.ok()) CheckRefusal(status);
  }
  return 0;
}
