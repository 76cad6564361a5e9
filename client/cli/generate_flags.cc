#include "client/cli/generate_flags.h"

#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "client/proto_time.h"

namespace sluice {
namespace {

// Small models write sentences with these, and hardly with the API's defaults, which are the
// model's own distribution.
constexpr float kDefaultTemperature = 0.7f;
constexpr float kDefaultTopP = 0.9f;

absl::Status AddBias(v1::SamplingParams* sampling, absl::string_view text) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(text, absl::MaxSplits(':', 1));
  int32_t id;
  float bias;
  if (!absl::SimpleAtoi(parts.first, &id) || !absl::SimpleAtof(parts.second, &bias)) {
    return absl::InvalidArgumentError("must be TOKEN_ID:BIAS, such as 42:-1.5");
  }
  (*sampling->mutable_logit_bias())[id] = bias;
  return absl::OkStatus();
}

absl::Status AddStop(v1::StopConditions* stop, absl::string_view text) {
  std::string unescaped;
  if (!absl::CUnescape(text, &unescaped)) {
    return absl::InvalidArgumentError("has a \\ that starts no C escape (write \\\\ for one)");
  }
  stop->add_strings(std::move(unescaped));
  return absl::OkStatus();
}

absl::Status SetConflict(v1::GenerateRequest* request, absl::string_view text) {
  if (text == "fail") {
    request->set_on_conflict(v1::CONFLICT_POLICY_FAIL);
  } else if (text == "wait") {
    request->set_on_conflict(v1::CONFLICT_POLICY_WAIT);
  } else if (text == "cancel") {
    request->set_on_conflict(v1::CONFLICT_POLICY_CANCEL_RUNNING);
  } else {
    return absl::InvalidArgumentError("must be fail, wait or cancel");
  }
  return absl::OkStatus();
}

}  // namespace

void AddSamplingFlags(v1::SamplingParams* sampling, FlagSet* flags) {
  sampling->set_temperature(kDefaultTemperature);
  sampling->set_top_p(kDefaultTopP);
  flags->Section("Sampling");
  flags->Add({"temperature", "X",
              "Divides the logits by X, 0 to 100; 0 takes the most likely token. Default: 0.7.",
              ToFloat([sampling](float value) { sampling->set_temperature(value); })});
  flags->Add({"top-k", "K", "Draws from the K most likely tokens only. Default: 0, off.",
              ToInt32([sampling](int32_t value) { sampling->set_top_k(value); })});
  flags->Add({"top-p", "P",
              "Draws from the most likely tokens that reach probability P; 1 is off. Default: 0.9.",
              ToFloat([sampling](float value) { sampling->set_top_p(value); })});
  flags->Add({"min-p", "P",
              "Draws from tokens with at least P times the most likely one's probability. Default: "
              "0, off.",
              ToFloat([sampling](float value) { sampling->set_min_p(value); })});
  flags->Add({"typical-p", "P",
              "Draws from the tokens of most typical information that reach probability P. "
              "Default: 1, off.",
              ToFloat([sampling](float value) { sampling->set_typical_p(value); })});
  flags->Add({"repetition-penalty", "X",
              "Divides the logits of tokens in the prompt and the output. Default: 1, off.",
              ToFloat([sampling](float value) { sampling->set_repetition_penalty(value); })});
  flags->Add({"presence-penalty", "X", "Lowers the logits of generated tokens. Default: 0.",
              ToFloat([sampling](float value) { sampling->set_presence_penalty(value); })});
  flags->Add(
      {"frequency-penalty", "X",
       "Lowers the logits of generated tokens once for each time they were generated. Default: 0.",
       ToFloat([sampling](float value) { sampling->set_frequency_penalty(value); })});
  flags->Add({"logit-bias", "ID:BIAS", "Adds BIAS to a token's logit. The flag may be repeated.",
              [sampling](absl::string_view text) { return AddBias(sampling, text); }});
  flags->Add({"seed", "N",
              "Seeds the sampling: the same seed gives the same tokens. Default: random, and "
              "printed with --stats.",
              ToUint64([sampling](uint64_t value) { sampling->set_seed(value); })});
}

void AddStopFlags(v1::StopConditions* stop, FlagSet* flags) {
  flags->Section("When to stop");
  flags->Add({"max-new-tokens", "N",
              "Stops after N tokens at the latest; --max-tokens means the same. Default: 256.",
              ToInt32([stop](int32_t value) { stop->set_max_new_tokens(value); }), "max-tokens"});
  flags->Add({"min-new-tokens", "N",
              "Generates at least N tokens before EOS or another stop. Default: 0.",
              ToInt32([stop](int32_t value) { stop->set_min_new_tokens(value); })});
  flags->Add({"stop", "TEXT",
              "Stops where TEXT appears; C escapes such as \\n work. The flag may be repeated.",
              [stop](absl::string_view text) { return AddStop(stop, text); }});
  flags->Add({"stop-token-ids", "ID,ID,...", "Stops at any of these tokens.",
              ToTokenIds([stop](int32_t id) { stop->add_token_ids(id); })});
  flags->Add({"ignore-eos", "", "Goes on after the model's end of text.",
              ToBool([stop](bool value) { stop->set_ignore_eos(value); })});
  flags->Add({"include-stop", "", "Prints what ended the text, too.",
              ToBool([stop](bool value) { stop->set_include_stop(value); })});
  flags->Add(
      {"time-limit", "DURATION", "Stops after this long, and keeps what there is.",
       ToDuration([stop](absl::Duration limit) { *stop->mutable_time_limit() = ToProto(limit); })});
}

void AddSessionFlags(v1::GenerateRequest* request, FlagSet* flags) {
  flags->Section("Session");
  flags->Add({"session", "ID", "Continues this session, and moves it on when the call succeeds.",
              ToString([request](std::string text) { request->set_session_id(std::move(text)); })});
  flags->Add({"etag", "ETAG", "Refuses unless the session's etag is this one.",
              ToString([request](std::string text) { request->set_etag(std::move(text)); })});
  flags->Add({"no-commit", "", "Leaves the session as it is.", ToBool([request](bool value) {
                request->set_commit_policy(value ? v1::COMMIT_POLICY_NEVER
                                                 : v1::COMMIT_POLICY_ON_SUCCESS);
              })});
  flags->Add({"durable", "", "Ends only when the session's new state is safe on disk.",
              ToBool([request](bool value) { request->set_durable(value); })});
  flags->Add({"on-conflict", "fail|wait|cancel",
              "Says what to do when another call writes to the session: fail, wait for it, or "
              "cancel it. Default: fail.",
              [request](absl::string_view text) { return SetConflict(request, text); }});
}

}  // namespace sluice
