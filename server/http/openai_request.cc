#include "server/http/openai_request.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "server/http/openai_session.h"
#include "server/status.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// Requests use at most four levels of nesting.
constexpr int kMaxDepth = 32;
constexpr int32_t kDefaultMaxTokens = 16;  // of a completion, as OpenAI's
constexpr size_t kMaxBiases = 1024;
constexpr size_t kMaxMessages = 65536;

// The deepest nesting of arrays and objects. It does not check that the text is JSON.
int DepthOf(absl::string_view text) {
  int depth = 0;
  int deepest = 0;
  bool quoted = false;
  for (size_t i = 0; i < text.size(); ++i) {
    const char c = text[i];
    if (quoted) {
      if (c == '\\') ++i;
      quoted = c != '"';
    } else if (c == '"') {
      quoted = true;
    } else if (c == '[' || c == '{') {
      deepest = std::max(deepest, ++depth);
    } else if (c == ']' || c == '}') {
      --depth;
    }
  }
  return deepest;
}

absl::StatusOr<Json> ParseBody(absl::string_view body) {
  if (DepthOf(body) > kMaxDepth) {
    return absl::InvalidArgumentError(
        absl::StrCat("the body is nested more than ", kMaxDepth, " deep"));
  }
  Json json = Json::parse(body.begin(), body.end(), nullptr, /*allow_exceptions=*/false);
  if (json.is_discarded()) return absl::InvalidArgumentError("the body is not valid JSON in UTF-8");
  if (!json.is_object()) return absl::InvalidArgumentError("the body must be a JSON object");
  return json;
}

bool IsInt(const Json& value) {
  return value.is_number_integer() &&
         (!value.is_number_unsigned() ||
          value.get<uint64_t>() <= static_cast<uint64_t>(std::numeric_limits<int64_t>::max()));
}

bool IsInt32(const Json& value) {
  return IsInt(value) && value.get<int64_t>() >= std::numeric_limits<int32_t>::min() &&
         value.get<int64_t>() <= std::numeric_limits<int32_t>::max();
}

bool IsFloat(const Json& value) {
  return value.is_number() &&
         std::abs(value.get<double>()) <= double{std::numeric_limits<float>::max()};
}

// The fields of one object. Each getter gives null, or leaves `out` alone, where the field is
// absent, null, or of the wrong type, which it then notes.
class Fields {
 public:
  Fields(const Json& object, FieldViolations* violations)
      : object_(object), violations_(violations) {}

  const Json* Find(const char* name) const {
    const auto it = object_.find(name);
    return it == object_.end() || it->is_null() ? nullptr : &*it;
  }

  bool Int(const char* name, int32_t* out) const {
    const Json* value = Find(name);
    if (value == nullptr || !Is(name, IsInt32(*value), "must be a whole number of 32 bits")) {
      return false;
    }
    *out = value->get<int32_t>();
    return true;
  }

  bool Float(const char* name, float* out) const {
    const Json* value = Find(name);
    if (value == nullptr || !Is(name, IsFloat(*value), "must be a number")) return false;
    *out = static_cast<float>(value->get<double>());
    return true;
  }

  bool Bool(const char* name) const {
    const Json* value = Find(name);
    return value != nullptr && Is(name, value->is_boolean(), "must be true or false") &&
           value->get<bool>();
  }

  const std::string* String(const char* name) const {
    const Json* value = Find(name);
    if (value == nullptr || !Is(name, value->is_string(), "must be a string")) return nullptr;
    return value->get_ptr<const Json::string_t*>();
  }

  void Refuse(const char* name, const char* why) const { violations_->Add(name, why); }
  FieldViolations* violations() const { return violations_; }

 private:
  bool Is(const char* name, bool right, const char* what) const {
    if (!right) violations_->Add(name, what);
    return right;
  }

  const Json& object_;
  FieldViolations* const violations_;
};

// ---- What cannot be honoured ----

bool IsEmpty(const Json& value) {
  return ((value.is_array() || value.is_object()) && value.empty()) || value == "";
}

bool IsOff(const Json& value) {
  return IsEmpty(value) || (value.is_boolean() && !value.get<bool>()) || value == "none";
}

void RefuseUnsupported(const Fields& fields, bool chat) {
  constexpr const char* kNever[] = {"suffix",
                                    "tools",
                                    "tool_choice",
                                    "functions",
                                    "function_call",
                                    "audio",
                                    "web_search_options",
                                    "use_beam_search",
                                    "prompt_embeds",
                                    "structured_outputs",
                                    "guided_json",
                                    "guided_regex",
                                    "guided_choice",
                                    "guided_grammar",
                                    "truncate_prompt_tokens",
                                    "chat_template",
                                    "continue_final_message",
                                    "documents"};
  for (const char* name : kNever) {
    const Json* value = fields.Find(name);
    if (value != nullptr && !IsOff(*value)) fields.Refuse(name, "is not supported");
  }
  if (const Json* format = fields.Find("response_format");
      format != nullptr && !(format->is_object() && format->value("type", Json()) == "text")) {
    fields.Refuse("response_format", "is supported only as {\"type\": \"text\"}");
  }
  if (const Json* modalities = fields.Find("modalities");
      modalities != nullptr && *modalities != Json::array({"text"})) {
    fields.Refuse("modalities", "is supported only as [\"text\"]");
  }
  if (chat && fields.Bool("echo")) fields.Refuse("echo", "is not supported for a chat");
}

// ---- What both kinds have ----

void TakeSampling(const Fields& fields, v1::SamplingParams* out) {
  float number = 0;
  int32_t whole = 0;
  out->set_temperature(1.0f);
  if (fields.Float("temperature", &number)) out->set_temperature(number);
  if (fields.Float("top_p", &number)) out->set_top_p(number);
  if (fields.Float("min_p", &number)) out->set_min_p(number);
  if (fields.Float("typical_p", &number)) out->set_typical_p(number);
  if (fields.Float("repetition_penalty", &number)) out->set_repetition_penalty(number);
  if (fields.Float("presence_penalty", &number)) out->set_presence_penalty(number);
  if (fields.Float("frequency_penalty", &number)) out->set_frequency_penalty(number);
  // -1 is how others say "off".
  if (fields.Int("top_k", &whole)) out->set_top_k(whole == -1 ? 0 : whole);
  if (const Json* seed = fields.Find("seed")) {
    if (IsInt(*seed)) {
      out->set_seed(static_cast<uint64_t>(seed->get<int64_t>()));
    } else if (seed->is_number_unsigned()) {
      out->set_seed(seed->get<uint64_t>());
    } else {
      fields.Refuse("seed", "must be a whole number of 64 bits");
    }
  }
}

void TakeBias(const Fields& fields, v1::SamplingParams* out) {
  const Json* bias = fields.Find("logit_bias");
  if (bias == nullptr) return;
  if (!bias->is_object() || bias->size() > kMaxBiases) {
    return fields.Refuse("logit_bias", "must be an object of at most 1024 tokens");
  }
  for (auto it = bias->begin(); it != bias->end(); ++it) {
    int32_t token = 0;
    if (!absl::SimpleAtoi(it.key(), &token) || !IsFloat(it.value())) {
      return fields.Refuse("logit_bias", "must be an object from token ids to numbers");
    }
    (*out->mutable_logit_bias())[token] = static_cast<float>(it.value().get<double>());
  }
}

void TakeStop(const Fields& fields, v1::StopConditions* out) {
  int32_t whole = 0;
  if (fields.Int("min_tokens", &whole)) out->set_min_new_tokens(whole);
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
  const Json* ids = fields.Find("stop_token_ids");
  if (ids == nullptr) return;
  if (!ids->is_array() || !std::all_of(ids->begin(), ids->end(), &IsInt32)) {
    return fields.Refuse("stop_token_ids", "must be an array of token ids");
  }
  for (const Json& id : *ids) out->add_token_ids(id.get<int32_t>());
}

void TakeCommon(const Fields& fields, v1::GenerateRequest* message, OpenAiRequest* out) {
  RefuseUnsupported(fields, out->chat);
  if (const std::string* model = fields.String("model")) message->set_model(*model);
  TakeSampling(fields, message->mutable_sampling());
  TakeBias(fields, message->mutable_sampling());
  TakeStop(fields, message->mutable_stop());
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
  out->include_usage = Fields(*options, fields.violations()).Bool("include_usage");
}

// ---- /v1/completions ----

bool IsTokenArray(const Json& value) {
  return value.is_array() && !value.empty() && std::all_of(value.begin(), value.end(), &IsInt32);
}

void SetTokens(const Json& ids, v1::GenerateRequest* out) {
  v1::TokenIds* tokens = out->mutable_tokens();
  tokens->mutable_ids()->Reserve(static_cast<int>(ids.size()));
  for (const Json& id : ids) tokens->add_ids(id.get<int32_t>());
}

// A prompt alone: a text, or the ids of its tokens. False if it is neither.
bool AddPrompt(const Json& prompt, const v1::GenerateRequest& common, OpenAiRequest* out) {
  if (!prompt.is_string() && !IsTokenArray(prompt)) return false;
  v1::GenerateRequest& message = out->prompts.emplace_back(common);
  if (prompt.is_string()) {
    message.set_text(prompt.get_ref<const std::string&>());
  } else {
    SetTokens(prompt, &message);
  }
  return true;
}

void TakePrompts(const Fields& fields, int32_t max_sequences, const v1::GenerateRequest& common,
                 OpenAiRequest* out) {
  const Json* prompt = fields.Find("prompt");
  if (prompt == nullptr) return fields.Refuse("prompt", "is required");
  if (AddPrompt(*prompt, common, out)) return;
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
    if (!AddPrompt(one, common, out)) return fields.Refuse("prompt", kWhat);
  }
}

// ---- /v1/chat/completions ----

bool IsRole(absl::string_view role) {
  return role == "system" || role == "developer" || role == "user" || role == "assistant";
}

// A text, or an array of parts that are texts.
bool ReadContent(const Json& content, std::string* out) {
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

std::vector<ChatMessage> ReadMessages(const Fields& fields) {
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
      fields.violations()->Add(at + ".role", "must be system, developer, user or assistant");
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

void TakeChatOutput(const Fields& fields, v1::GenerateRequest* out) {
  int32_t whole = 0;
  if (fields.Int("max_tokens", &whole)) out->mutable_stop()->set_max_new_tokens(whole);
  if (fields.Int("max_completion_tokens", &whole)) out->mutable_stop()->set_max_new_tokens(whole);
  const bool logprobs = fields.Bool("logprobs");
  if (logprobs) out->mutable_output()->set_logprobs(0);
  if (!fields.Int("top_logprobs", &whole)) return;
  if (!logprobs) return fields.Refuse("top_logprobs", "needs logprobs to be true");
  out->mutable_output()->set_logprobs(whole);
}

}  // namespace

absl::StatusOr<OpenAiRequest> ParseCompletion(absl::string_view body, int32_t max_sequences) {
  const absl::StatusOr<Json> json = ParseBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const Fields fields(*json, &violations);
  OpenAiRequest out;
  v1::GenerateRequest common;
  TakeCommon(fields, &common, &out);
  int32_t whole = kDefaultMaxTokens;
  fields.Int("max_tokens", &whole);
  common.mutable_stop()->set_max_new_tokens(whole);
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
                                                  int32_t max_stop_strings) {
  const absl::StatusOr<Json> json = ParseBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const Fields fields(*json, &violations);
  OpenAiRequest out;
  out.chat = true;
  v1::GenerateRequest& message = out.prompts.emplace_back();
  TakeCommon(fields, &message, &out);
  TakeChatOutput(fields, &message);
  TakeSession(*json, &violations, &message);
  message.set_text(chat_template.Render(ReadMessages(fields)));
  absl::Status status = violations.ToStatus();
  if (!status.ok()) return status;
  const std::string stop = chat_template.Stop();
  if (!stop.empty() && message.stop().strings_size() < max_stop_strings) {
    message.mutable_stop()->add_strings(stop);
  }
  return out;
}

}  // namespace sluice
