#include "server/http/openai_request.h"

#include <algorithm>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/http/json_body.h"
#include "server/http/json_fields.h"
#include "server/http/openai_field_names.h"
#include "server/http/openai_session.h"
#include "server/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr int32_t kDefaultMaxTokens = 16;  // of a completion, as OpenAI's
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxMessages = 65536;

bool IsOff(const Json& value) { return value.is_null() || value.empty() || value == false; }

// ---- What both kinds have ----

void SetDefaults(const SamplingDefaults& defaults, v1::SamplingParams* out) {
  out->set_temperature(defaults.temperature.value_or(1.0f));
  if (defaults.top_k.has_value()) out->set_top_k(*defaults.top_k);
  if (defaults.top_p.has_value()) out->set_top_p(*defaults.top_p);
  if (defaults.min_p.has_value()) out->set_min_p(*defaults.min_p);
  if (defaults.typical_p.has_value()) out->set_typical_p(*defaults.typical_p);
  if (defaults.repetition_penalty.has_value()) {
    out->set_repetition_penalty(*defaults.repetition_penalty);
  }
}

void TakeSampling(const JsonFields& fields, v1::SamplingParams* out) {
  float number = 0;
  int32_t whole = 0;
  if (fields.Float("temperature", &number)) out->set_temperature(number);
  if (fields.Float("top_p", &number)) out->set_top_p(number);
  if (fields.Float("min_p", &number)) out->set_min_p(number);
  if (fields.Float("typical_p", &number)) out->set_typical_p(number);
  if (fields.Float("repeat_penalty", &number)) out->set_repetition_penalty(number);
  if (fields.Float("repetition_penalty", &number)) out->set_repetition_penalty(number);
  if (fields.Float("presence_penalty", &number)) out->set_presence_penalty(number);
  if (fields.Float("frequency_penalty", &number)) out->set_frequency_penalty(number);
  // -1 is how others say "off".
  if (fields.Int("top_k", &whole)) out->set_top_k(whole == -1 ? 0 : whole);
  // Others give the most likely tokens without it, whatever the temperature is.
  if (fields.Find("do_sample") != nullptr && !fields.Bool("do_sample")) out->set_temperature(0.0f);
  const Json* seed = fields.Find("seed");
  // -1 is how others say "none".
  if (seed == nullptr || (IsInt64(*seed) && seed->get<int64_t>() == -1)) return;
  if (IsInt64(*seed)) {
    out->set_seed(static_cast<uint64_t>(seed->get<int64_t>()));
  } else if (seed->is_number_unsigned()) {
    out->set_seed(seed->get<uint64_t>());
  } else {
    fields.Refuse("seed",
                  absl::StrCat(seed->is_number() ? absl::StrCat("is ", seed->dump(), ", ") : "",
                               "must be a whole number of 64 bits"));
  }
}

void TakeBias(const JsonFields& fields, v1::SamplingParams* out) {
  const Json* bias = fields.Find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object() || bias->size() > kMaxBiases) {
    return fields.Refuse("logit_bias", "must be an object of at most 1024 tokens");
  }
  for (auto it = bias->begin(); it != bias->end(); ++it) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(it.key(), &token) || !it.value().is_number()) {
      return fields.Refuse("logit_bias", "must be an object from token ids to numbers");
    }
    if (!IsFloat(it.value())) {
      return fields.Refuse(absl::StrCat("logit_bias[", token, "]"),
                           absl::StrCat("is ", it.value().dump(), ", must be in [-100, 100]"));
    }
    (*out->mutable_logit_bias())[token] = static_cast<float>(it.value().get<double>());
  }
}

void TakeStop(const JsonFields& fields, v1::StopConditions* out) {
  int32_t whole = 0;
  for (const char* name : {"min_new_tokens", "min_tokens"}) {
    if (fields.Int(name, &whole)) out->set_min_new_tokens(whole);
  }
  out->set_ignore_eos(fields.Bool("ignore_eos"));
  out->set_include_stop(fields.Bool("include_stop_str_in_output"));
  if (const Json* stop = fields.Find("stop"); stop != nullptr && stop->is_string()) {
    out->add_strings(stop->get_ref<const std::string&>());
  } else if (stop != nullptr) {
    const bool strings =
        stop->is_array() && std::all_of(stop->begin(), stop->end(),
                                        [](const Json& element) { return element.is_string(); });
    if (!strings) return fields.Refuse("stop", "must be a string or an array of strings");
    for (const Json& text : *stop) out->add_strings(text.get_ref<const std::string&>());
  }
  if (const Json* ids = fields.Find("stop_token_ids")) {
    TakeTokens("stop_token_ids", *ids, fields.violations(), out->mutable_token_ids());
  }
}

// The least of the bounds that a request may name, each of which holds.
void TakeMaxTokens(const JsonFields& fields, v1::StopConditions* out) {
  for (const char* name : {"max_tokens", "max_completion_tokens", "max_new_tokens", "n_predict"}) {
    int32_t whole = 0;
    if (!fields.Int(name, &whole)) continue;
    if (whole < 0) {
      fields.Refuse(name, absl::StrCat("is ", whole, ", must be at least 0"));
    } else if (!out->has_max_new_tokens() || whole < out->max_new_tokens()) {
      out->set_max_new_tokens(whole);
    }
  }
}

void TakeCommon(const JsonFields& fields, const SamplingDefaults& defaults,
                v1::GenerateRequest* message, OpenAiRequest* out) {
  out->unknown_fields = CheckFieldNames(fields, out->chat);
  if (const std::string* model = fields.String("model")) message->set_model(*model);
  SetDefaults(defaults, message->mutable_sampling());
  TakeSampling(fields, message->mutable_sampling());
  TakeBias(fields, message->mutable_sampling());
  TakeStop(fields, message->mutable_stop());
  TakeMaxTokens(fields, message->mutable_stop());
  if (fields.Find("add_special_tokens") != nullptr) {
    message->set_add_special_tokens(fields.Bool("add_special_tokens"));
  }
  int32_t whole = 0;
  if (fields.Int("n", &whole)) message->set_n(whole);
  if (fields.Int("priority", &whole)) message->set_priority(whole);
  if (fields.Find("best_of") != nullptr && fields.Int("best_of", &whole) &&
      whole != (message->has_n() ? message->n() : 1)) {
    fields.Refuse("best_of", "is supported only when it equals n");
  }
  out->token_ids = fields.Bool("return_token_ids");
  message->mutable_output()->set_token_ids(out->token_ids);
  out->stream = fields.Bool("stream");
  const Json* options = fields.Find("stream_options");
  if (options == nullptr) return;
  if (!options->is_object() || !out->stream) {
    return fields.Refuse("stream_options",
                         "must be an object, and is allowed only when stream is true");
  }
  const JsonFields stream(*options, fields.violations());
  out->include_usage = stream.Bool("include_usage");
  if (stream.Bool("continuous_usage_stats")) {
    fields.Refuse("stream_options.continuous_usage_stats", "is not supported");
  }
}

// ---- /v1/completions ----

// Also of numbers that are no ids, which are then told.
bool IsTokenArray(const Json& value) {
  return value.is_array() && !value.empty() &&
         std::all_of(value.begin(), value.end(), [](const Json& id) { return id.is_number(); });
}

// A prompt alone: a text, or the ids of its tokens. False if it is neither.
bool AddPrompt(const JsonFields& fields, absl::string_view name, const Json& prompt,
               const v1::GenerateRequest& common, OpenAiRequest* out) {
  if (!prompt.is_string() && !IsTokenArray(prompt)) return false;
  v1::GenerateRequest& message = out->prompts.emplace_back(common);
  if (prompt.is_string()) {
    message.set_text(prompt.get_ref<const std::string&>());
  } else {
    TakeTokens(name, prompt, fields.violations(), message.mutable_tokens()->mutable_ids());
  }
  return true;
}

void TakePrompts(const JsonFields& fields, int32_t max_sequences, const v1::GenerateRequest& common,
                 OpenAiRequest* out) {
  const Json* prompt = fields.Find("prompt");
  if (prompt == nullptr) return fields.Refuse("prompt", "is required");
  if (AddPrompt(fields, "prompt", *prompt, common, out)) return;
  constexpr char kWhat[] =
      "must be a string, an array of strings, an array of tokens, or an array of those";
  if (!prompt->is_array() || prompt->empty()) return fields.Refuse("prompt", kWhat);
  const int64_t n = common.has_n() ? std::max(common.n(), 1) : 1;
  if (static_cast<int64_t>(prompt->size()) * n > max_sequences) {
    return fields.violations()->Add(
        "prompt", absl::StrCat("has ", prompt->size(), " prompts, with n of ", n,
                               " that makes more than ", max_sequences, " sequences"));
  }
  for (const Json& one : *prompt) {
    const std::string name = absl::StrCat("prompt[", out->prompts.size(), "]");
    if (!AddPrompt(fields, name, one, common, out)) return fields.Refuse("prompt", kWhat);
  }
}

// ---- /v1/chat/completions ----

bool IsRole(absl::string_view role) {
  return role == "system" || role == "developer" || role == "user" || role == "assistant" ||
         role == "tool";
}

// A text, or an array of parts that are texts; null is an empty one.
bool ReadContent(const Json& content, std::string* out) {
  if (content.is_null()) return true;
  if (content.is_string()) {
    *out = content.get_ref<const std::string&>();
    return true;
  }
  if (!content.is_array() || content.empty()) return false;
  for (const Json& part : content) {
    if (!part.is_object()) return false;
    const auto type = part.find("type");
    const auto text = part.find("text");
    if (type == part.end() || *type != "text" || text == part.end() || !text->is_string()) {
      return false;
    }
    out->append(text->get_ref<const std::string&>());
  }
  return true;
}

void TakeChatOutput(const JsonFields& fields, v1::GenerateRequest* out) {
  int32_t whole = 0;
  const bool logprobs = fields.Bool("logprobs");
  if (logprobs) out->mutable_output()->set_logprobs(0);
  if (!fields.Int("top_logprobs", &whole)) return;
  if (!logprobs) return fields.Refuse("top_logprobs", "needs logprobs to be true");
  out->mutable_output()->set_logprobs(whole);
}

}  // namespace

std::vector<ChatMessage> ReadMessages(const JsonFields& fields) {
  std::vector<ChatMessage> out;
  const Json* messages = fields.Find("messages");
  if (messages == nullptr || !messages->is_array() || messages->empty() ||
      messages->size() > kMaxMessages) {
    fields.Refuse("messages", "must be an array of messages, at least one");
    return out;
  }
  for (const Json& element : *messages) {
    const std::string at = absl::StrCat("messages[", out.size(), "]");
    const auto role = element.is_object() ? element.find("role") : element.end();
    const auto content = element.is_object() ? element.find("content") : element.end();
    if (role == element.end() || !role->is_string() ||
        !IsRole(role->get_ref<const std::string&>())) {
      fields.violations()->Add(at + ".role", "must be system, developer, user, assistant or tool");
      return out;
    }
    ChatMessage& message = out.emplace_back();
    message.role = role->get_ref<const std::string&>();
    if (content == element.end() || !ReadContent(*content, &message.content)) {
      fields.violations()->Add(at + ".content", "must be a string or an array of text parts");
      return out;
    }
    if (const auto calls = element.find("tool_calls");
        calls != element.end() && !IsOff(*calls) && !calls->is_null()) {
      fields.violations()->Add(at + ".tool_calls", "is not supported");
      return out;
    }
  }
  return out;
}

absl::StatusOr<OpenAiRequest> ParseCompletion(absl::string_view body, int32_t max_sequences,
                                              const SamplingDefaults& defaults) {
  const absl::StatusOr<Json> json = ParseJsonBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const JsonFields fields(*json, &violations);
  OpenAiRequest out;
  v1::GenerateRequest common;
  TakeCommon(fields, defaults, &common, &out);
  if (!common.stop().has_max_new_tokens()) {
    common.mutable_stop()->set_max_new_tokens(kDefaultMaxTokens);
  }
  int32_t whole = 0;
  v1::OutputOptions* output = common.mutable_output();
  output->set_echo(fields.Bool("echo"));
  if (fields.Int("logprobs", &whole)) {
    output->set_logprobs(whole);
    output->set_prompt_logprobs(output->echo());
    // Each of the n sequences would repeat the prompt's log-probabilities.
    if (output->echo() && common.n() > 1) fields.Refuse("n", "must be 1 with echo and logprobs");
  }
  TakeSession(*json, &violations, &common);
  TakePrompts(fields, max_sequences, common, &out);
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  return out;
}

absl::StatusOr<OpenAiRequest> ParseChatCompletion(absl::string_view body,
                                                  const ChatTemplate& chat_template,
                                                  int32_t max_stop_strings,
                                                  const SamplingDefaults& defaults) {
  const absl::StatusOr<Json> json = ParseJsonBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const JsonFields fields(*json, &violations);
  OpenAiRequest out;
  out.chat = true;
  v1::GenerateRequest& message = out.prompts.emplace_back();
  TakeCommon(fields, defaults, &message, &out);
  TakeChatOutput(fields, &message);
  TakeSession(*json, &violations, &message);
  if (fields.Bool("echo")) fields.Refuse("echo", "is not supported for a chat");
  out.messages = ReadMessages(fields);
  message.set_text(chat_template.Render(out.messages));
  // The chat's own end comes beside those that the caller may have.
  google::protobuf::RepeatedPtrField<std::string>& stops =
      *message.mutable_stop()->mutable_strings();
  if (stops.size() > max_stop_strings) {
    fields.Refuse("stop", absl::StrCat("has ", stops.size(), " entries, at most ", max_stop_strings,
                                       " are allowed"));
  }
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  const std::string stop = chat_template.Stop();
  if (!stop.empty() && std::find(stops.begin(), stops.end(), stop) == stops.end()) {
    stops.Add(std::string(stop));
    out.own_stop = stop;
  }
  return out;
}

}  // namespace sluice
