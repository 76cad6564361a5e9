#include "server/validate.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "absl/container/flat_hash_set.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "server/status.h"
#include "server/validate_fields.h"

namespace sluice {
namespace {

constexpr size_t kMaxRequestIdBytes = 128;
constexpr int kMaxStopStringBytes = 256;
constexpr int kMaxStopTokens = 64;
constexpr int kMaxBiases = 1024;
constexpr int kMaxPriority = 100;

// Ranges of SamplingParams, as generate.proto states them.
struct FloatRange {
  float min;
  float max;
  bool above_min;  // min itself is outside
};
constexpr FloatRange kTemperature = {0.0f, 100.0f, false};
constexpr FloatRange kProbability = {0.0f, 1.0f, true};
constexpr FloatRange kMinP = {0.0f, 1.0f, false};
constexpr FloatRange kRepetition = {0.0f, 100.0f, true};
constexpr FloatRange kAdditive = {-100.0f, 100.0f, false};

bool InRange(float value, const FloatRange& range) {
  return std::isfinite(value) && value <= range.max &&
         (range.above_min ? value > range.min : value >= range.min);
}

std::string Describe(const FloatRange& range) {
  return absl::StrCat(range.above_min ? "(" : "[", range.min, ", ", range.max, "]");
}

void CheckFloat(absl::string_view field, float value, const FloatRange& range,
                FieldViolations* violations) {
  if (InRange(value, range)) return;
  violations->Add(field, absl::StrCat("is ", value, ", must be in ", Describe(range)));
}

void CheckInt(absl::string_view field, int64_t value, int64_t min, int64_t max,
              FieldViolations* violations) {
  if (value >= min && value <= max) return;
  violations->Add(field, absl::StrCat("is ", value, ", must be in [", min, ", ", max, "]"));
}

void CheckCount(absl::string_view field, int64_t count, int64_t max, FieldViolations* violations) {
  if (count <= max) return;
  violations->Add(field, absl::StrCat("has ", count, " entries, at most ", max, " are allowed"));
}

// Names only the first bad id: there may be a million of them.
template <typename Ids>
void CheckTokens(absl::string_view field, const Ids& ids, int32_t vocab_size,
                 FieldViolations* violations) {
  for (int i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < vocab_size) continue;
    violations->Add(absl::StrCat(field, "[", i, "]"),
                    absl::StrCat("is ", ids[i], ", must be in [0, ", vocab_size, ")"));
    return;
  }
}

template <typename Enum>
void CheckEnum(absl::string_view field, Enum value, bool (*is_valid)(int),
               FieldViolations* violations) {
  if (!is_valid(value))
    violations->Add(
        field, absl::StrCat("is ", static_cast<int>(value), ", which is no value of its enum"));
}

SamplingConfig ParseSampling(const v1::SamplingParams& message, const RequestBounds& bounds,
                             FieldViolations* violations) {
  SamplingConfig out;
  const auto take = [&](const char* field, bool present, float value, const FloatRange& range,
                        float* to) {
    if (!present) return;
    CheckFloat(field, value, range, violations);
    *to = value;
  };
  take("sampling.temperature", message.has_temperature(), message.temperature(), kTemperature,
       &out.temperature);
  take("sampling.top_p", message.has_top_p(), message.top_p(), kProbability, &out.top_p);
  take("sampling.min_p", message.has_min_p(), message.min_p(), kMinP, &out.min_p);
  take("sampling.typical_p", message.has_typical_p(), message.typical_p(), kProbability,
       &out.typical_p);
  take("sampling.repetition_penalty", message.has_repetition_penalty(),
       message.repetition_penalty(), kRepetition, &out.repetition_penalty);
  take("sampling.presence_penalty", message.has_presence_penalty(), message.presence_penalty(),
       kAdditive, &out.presence_penalty);
  take("sampling.frequency_penalty", message.has_frequency_penalty(), message.frequency_penalty(),
       kAdditive, &out.frequency_penalty);
  CheckInt("sampling.top_k", message.top_k(), 0, bounds.vocab_size, violations);
  out.top_k = message.top_k();
  return out;
}

// Sorts by id, because the order of a map differs between runs.
std::vector<TokenBias> ParseBias(const v1::SamplingParams& message, const RequestBounds& bounds,
                                 FieldViolations* violations) {
  std::vector<TokenBias> out;
  CheckCount("sampling.logit_bias", static_cast<int64_t>(message.logit_bias().size()), kMaxBiases,
             violations);
  if (message.logit_bias().size() > kMaxBiases) return out;
  for (const auto& [token, bias] : message.logit_bias()) out.push_back({token, bias});
  std::sort(out.begin(), out.end(),
            [](const TokenBias& a, const TokenBias& b) { return a.token < b.token; });
  for (const TokenBias& entry : out) {
    if (entry.token < 0 || entry.token >= bounds.vocab_size) {
      violations->Add(
          "sampling.logit_bias",
          absl::StrCat("names token ", entry.token, ", must be in [0, ", bounds.vocab_size, ")"));
    }
    CheckFloat(absl::StrCat("sampling.logit_bias[", entry.token, "]"), entry.bias, kAdditive,
               violations);
  }
  return out;
}

// EOS and the stop tokens are not sampled before min_new_tokens.
void CheckTokensAreLeft(const StopConditions& stop, const RequestBounds& bounds,
                        FieldViolations* violations) {
  if (stop.min_new_tokens == 0) return;
  absl::flat_hash_set<int32_t> masked(stop.token_ids.begin(), stop.token_ids.end());
  if (!stop.ignore_eos) masked.insert(bounds.eos_token_ids.begin(), bounds.eos_token_ids.end());
  if (static_cast<int64_t>(masked.size()) < bounds.vocab_size) return;
  violations->Add("stop.min_new_tokens",
                  absl::StrCat("is ", stop.min_new_tokens,
                               ", but every token of the vocabulary ends the answer"));
}

StopConditions ParseStop(const v1::StopConditions& message, const RequestBounds& bounds,
                         FieldViolations* violations) {
  StopConditions out;
  if (message.has_max_new_tokens()) {
    CheckInt("stop.max_new_tokens", message.max_new_tokens(), 0, bounds.max_new_tokens, violations);
    out.max_new_tokens = message.max_new_tokens();
  } else {
    out.max_new_tokens = std::min(out.max_new_tokens, bounds.max_new_tokens);
    out.max_new_tokens_given = false;
  }
  CheckInt("stop.min_new_tokens", message.min_new_tokens(), 0, std::max(out.max_new_tokens, 0),
           violations);
  out.min_new_tokens = message.min_new_tokens();
  CheckCount("stop.strings", message.strings_size(), bounds.max_stop_strings, violations);
  if (message.strings_size() <= bounds.max_stop_strings) {
    for (int i = 0; i < message.strings_size(); ++i) {
      const int64_t size = static_cast<int64_t>(message.strings(i).size());
      if (size < 1 || size > kMaxStopStringBytes) {
        violations->Add(absl::StrCat("stop.strings[", i, "]"),
                        absl::StrCat("has ", size, " bytes, must have 1 to ", kMaxStopStringBytes));
      }
    }
    out.strings.assign(message.strings().begin(), message.strings().end());
  }
  CheckCount("stop.token_ids", message.token_ids_size(), kMaxStopTokens, violations);
  CheckTokens("stop.token_ids", message.token_ids(), bounds.vocab_size, violations);
  if (message.token_ids_size() <= kMaxStopTokens) {
    out.token_ids.assign(message.token_ids().begin(), message.token_ids().end());
  }
  out.ignore_eos = message.ignore_eos();
  CheckTokensAreLeft(out, bounds, violations);
  out.include_stop = message.include_stop();
  if (message.has_time_limit()) {
    out.time_limit =
        ParsePositive("stop.time_limit", message.time_limit(), violations).value_or(out.time_limit);
  }
  return out;
}

OutputOptions ParseOutput(const v1::OutputOptions& message, const RequestBounds& bounds,
                          FieldViolations* violations) {
  OutputOptions out;
  if (message.has_text()) out.text = message.text();
  out.token_ids = message.token_ids();
  out.echo = message.echo();
  if (message.has_logprobs()) {
    CheckInt("output.logprobs", message.logprobs(), 0, bounds.max_logprobs, violations);
    out.logprobs = message.logprobs();
  }
  if (message.prompt_logprobs()) out.prompt_logprobs = message.logprobs();
  return out;
}

// Each field that needs a vocabulary says so where the daemon has none.
constexpr char kNoText[] = "needs a tokenizer, and this daemon has none: it takes token ids";

void CheckPromptSize(const char* field, size_t size, int64_t min_tokens,
                     const RequestBounds& bounds, FieldViolations* violations) {
  const int64_t tokens = static_cast<int64_t>(size);
  if (tokens >= min_tokens && tokens <= bounds.max_prompt_tokens) return;
  violations->Add(field, absl::StrCat("has ", tokens, " tokens, must have ", min_tokens, " to ",
                                      bounds.max_prompt_tokens));
}

// Fills in the prompt, and for a session also the prompt for an empty history; the engine finds out
// which one applies. It encodes last, so that a request with other faults costs no work.
template <typename Message>
void ParsePrompt(const Message& message, const char* oneof_name, int64_t min_tokens,
                 const RequestBounds& bounds, const Tokenizer& tokenizer, Request* out,
                 FieldViolations* violations) {
  const bool has_session = !message.session_id().empty();
  const char* field = oneof_name;
  if (message.has_tokens()) {
    field = "tokens.ids";
    if (message.has_add_special_tokens() && message.add_special_tokens()) {
      violations->Add("add_special_tokens", "is only for text; nothing is added to tokens");
    }
    CheckTokens(field, message.tokens().ids(), bounds.vocab_size, violations);
    if (!violations->empty()) return;
    out->prompt.assign(message.tokens().ids().begin(), message.tokens().ids().end());
    if (has_session) out->prompt_if_empty = out->prompt;
  } else if (message.has_text()) {
    field = "text";
    if (!tokenizer.has_text()) violations->Add(field, kNoText);
    if (!violations->empty()) return;
    const bool chosen = message.has_add_special_tokens();
    if (has_session) {
      SessionIds ids =
          tokenizer.EncodeForSession(message.text(), chosen ? message.add_special_tokens() : true,
                                     chosen ? message.add_special_tokens() : false);
      out->prompt = std::move(ids.continued);
      out->prompt_if_empty = std::move(ids.start);
    } else {
      out->prompt =
          tokenizer.Encode(message.text(), {chosen ? message.add_special_tokens() : true});
    }
  } else if (!has_session || out->kind == RequestKind::kScore) {
    violations->Add(oneof_name, "is required: set text or tokens");
    return;
  }
  // A session with a history can go on without a prompt. The engine refuses one without a history.
  if (out->kind == RequestKind::kGenerate && has_session) min_tokens = 0;
  CheckPromptSize(field, out->prompt.size(),
                  has_session ? std::min<int64_t>(min_tokens, 1) : min_tokens, bounds, violations);
  if (has_session && violations->empty()) {
    CheckPromptSize(field, out->prompt_if_empty.size(), 0, bounds, violations);
  }
}

// Adapts a request to a daemon without a vocabulary: no text goes in, and ids come out whether they
// were asked for or not.
void GiveIds(const v1::GenerateRequest& message, Request* out, FieldViolations* violations) {
  if (message.stop().strings_size() > 0) violations->Add("stop.strings", kNoText);
  if (message.output().has_text() && message.output().text()) {
    violations->Add("output.text", kNoText);
  }
  out->output.text = false;
  out->output.token_ids = true;
}

void CheckCallFields(const v1::GenerateRequest& message, FieldViolations* violations) {
  if (!IsRequestId(message.request_id())) {
    violations->Add("request_id", absl::StrCat("must be up to ", kMaxRequestIdBytes,
                                               " bytes of printable ASCII"));
  }
  CheckSessionId("session_id", message.session_id(), violations);
  CheckEnum("commit_policy", message.commit_policy(), &v1::CommitPolicy_IsValid, violations);
  CheckEnum("on_conflict", message.on_conflict(), &v1::ConflictPolicy_IsValid, violations);
}

// Reads the session fields, which depend on each other.
absl::Status ParseSession(const v1::GenerateRequest& message, const RequestBounds& bounds,
                          Request* out) {
  FieldViolations violations;
  const bool commits = message.commit_policy() != v1::COMMIT_POLICY_NEVER;
  if (message.session_id().empty()) {
    if (!message.etag().empty()) violations.Add("etag", "needs a session_id");
    if (message.durable()) violations.Add("durable", "needs a session_id");
    return violations.ToStatus();
  }
  if (!bounds.sessions) return NoSessions("session_id is set, and ");
  if (commits && out->n > 1) {
    violations.Add("n",
                   absl::StrCat("is ", out->n, ", with a session that needs COMMIT_POLICY_NEVER"));
  }
  if (!commits && message.durable()) {
    violations.Add("durable", "has no meaning with COMMIT_POLICY_NEVER");
  }
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  if (message.durable() && !bounds.durable_sessions) {
    return WithReason(
        absl::FailedPreconditionError("durable is set, and this daemon has no session directory"),
        "NO_SESSION_DIRECTORY");
  }
  out->session_id = message.session_id();
  out->etag = ParseEtag(message.etag());
  out->commit = commits;
  out->durable = message.durable();
  if (message.on_conflict() == v1::CONFLICT_POLICY_WAIT) out->on_conflict = OnConflict::kWait;
  if (message.on_conflict() == v1::CONFLICT_POLICY_CANCEL_RUNNING) {
    out->on_conflict = OnConflict::kCancelRunning;
  }
  return absl::OkStatus();
}

// The least bytes that a token takes of an answer beside its piece: a byte of its id, and the
// piece's tag and length.
constexpr int64_t kMinPieceBytes = 3;

absl::Status AnswerTooLarge(int64_t bytes, const RequestBounds& bounds) {
  return WithReason(
      absl::ResourceExhaustedError(absl::StrCat("the answer would have at least ", bytes,
                                                " bytes, more than max_message_bytes (",
                                                bounds.max_message_bytes, "): ask in parts")),
      "ANSWER_TOO_LARGE");
}

}  // namespace

absl::Status CheckModelName(absl::string_view name, const RequestBounds& bounds) {
  if (name.empty() || name == bounds.model_name) return absl::OkStatus();
  constexpr size_t kShown = 64;
  return WithReason(absl::NotFoundError(absl::StrCat(
                        "model '", absl::CHexEscape(name.substr(0, kShown)),
                        "' is not loaded; this daemon serves '", bounds.model_name, "'")),
                    "MODEL_NOT_FOUND");
}

bool IsRequestId(absl::string_view id) {
  return id.size() <= kMaxRequestIdBytes &&
         std::all_of(id.begin(), id.end(), [](char c) { return c >= 0x20 && c <= 0x7e; });
}

absl::StatusOr<Request> ParseGenerate(const v1::GenerateRequest& message,
                                      const RequestBounds& bounds, const Tokenizer& tokenizer,
                                      uint64_t seed) {
  absl::Status status = CheckModelName(message.model(), bounds);
  if (!status.ok()) return status;
  FieldViolations violations;
  CheckCallFields(message, &violations);
  Request out;
  out.kind = RequestKind::kGenerate;
  out.request_id = message.request_id();
  out.sampling = ParseSampling(message.sampling(), bounds, &violations);
  out.logit_bias = ParseBias(message.sampling(), bounds, &violations);
  out.seed = message.sampling().has_seed() ? message.sampling().seed() : seed;
  out.stop = ParseStop(message.stop(), bounds, &violations);
  out.output = ParseOutput(message.output(), bounds, &violations);
  if (!tokenizer.has_text()) GiveIds(message, &out, &violations);
  if (message.has_n()) {
    CheckInt("n", message.n(), 1, bounds.max_sequences, &violations);
    out.n = message.n();
  }
  CheckInt("priority", message.priority(), -kMaxPriority, kMaxPriority, &violations);
  out.priority = message.priority();
  if (violations.empty()) {
    status = ParseSession(message, bounds, &out);
    if (!status.ok()) return status;
  }
  out.bypass_prefix_cache = message.bypass_prefix_cache();
  ParsePrompt(message, "prompt", 1, bounds, tokenizer, &out, &violations);
  status = violations.ToStatus();
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<Request> ParseScore(const v1::ScoreRequest& message, const RequestBounds& bounds,
                                   const Tokenizer& tokenizer) {
  absl::Status status = CheckModelName(message.model(), bounds);
  if (!status.ok()) return status;
  FieldViolations violations;
  CheckSessionId("session_id", message.session_id(), &violations);
  CheckInt("top_logprobs", message.top_logprobs(), 0, bounds.max_logprobs, &violations);
  if (violations.empty() && !message.session_id().empty() && !bounds.sessions) {
    return NoSessions("session_id is set, and ");
  }
  Request out;
  out.kind = RequestKind::kScore;
  out.session_id = message.session_id();
  out.commit = false;
  // One token alone has no score, but what may follow it has.
  ParsePrompt(message, "input", 1, bounds, tokenizer, &out, &violations);
  out.output.text = false;
  out.output.prompt_logprobs = message.top_logprobs();
  out.score_alternatives = message.top_logprobs();
  out.score_summary_only = message.summary_only();
  status = violations.ToStatus();
  if (!status.ok()) return status;
  return out;
}

absl::Status Tokenize(const v1::TokenizeRequest& message, const RequestBounds& bounds,
                      const Tokenizer& tokenizer, v1::TokenizeResponse* response) {
  absl::Status status = CheckModelName(message.model(), bounds);
  if (!status.ok()) return status;
  if (!tokenizer.has_text()) {
    FieldViolations violations;
    violations.Add("text", kNoText);
    return violations.ToStatus();
  }
  const bool add_special = !message.has_add_special_tokens() || message.add_special_tokens();
  // The least bytes that the ids so far take of the answer.
  int64_t at_least = 0;
  size_t counted = 0;
  const auto too_large = [&](const std::vector<int32_t>& ids) {
    for (; counted < ids.size(); ++counted) {
      at_least += kMinPieceBytes + static_cast<int64_t>(tokenizer.Piece(ids[counted]).size());
    }
    return at_least > bounds.max_message_bytes;
  };
  const std::vector<int32_t> ids =
      tokenizer.Encode(message.text(), {.add_special_tokens = add_special, .enough = too_large});
  if (too_large(ids)) return AnswerTooLarge(at_least, bounds);
  response->mutable_token_ids()->Assign(ids.begin(), ids.end());
  for (const int32_t id : ids) response->add_pieces(std::string(tokenizer.Piece(id)));
  const int64_t size = static_cast<int64_t>(response->ByteSizeLong());
  if (size > bounds.max_message_bytes) return AnswerTooLarge(size, bounds);
  return absl::OkStatus();
}

absl::Status Detokenize(const v1::DetokenizeRequest& message, const RequestBounds& bounds,
                        const Tokenizer& tokenizer, v1::DetokenizeResponse* response) {
  absl::Status status = CheckModelName(message.model(), bounds);
  if (!status.ok()) return status;
  FieldViolations violations;
  CheckCount("token_ids", message.token_ids_size(), bounds.max_prompt_tokens, &violations);
  CheckTokens("token_ids", message.token_ids(), bounds.vocab_size, &violations);
  status = violations.ToStatus();
  if (!status.ok()) return status;
  if (!tokenizer.has_text()) {
    return WithReason(absl::FailedPreconditionError(
                          "a text needs a tokenizer, and this daemon has none (--tokenizer=none)"),
                      "NO_TOKENIZER");
  }
  response->set_text(tokenizer.Decode(absl::MakeConstSpan(
      message.token_ids().data(), static_cast<size_t>(message.token_ids_size()))));
  const int64_t size = static_cast<int64_t>(response->ByteSizeLong());
  if (size > bounds.max_message_bytes) return AnswerTooLarge(size, bounds);
  return absl::OkStatus();
}

}  // namespace sluice
