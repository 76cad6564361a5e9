#include "server/http/tokens_json.h"

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "server/http/json_body.h"
#include "server/http/json_fields.h"
#include "server/http/json_writer.h"
#include "server/http/openai_request.h"
#include "sluice/v1/tokens.pb.h"

namespace sluice {
namespace {

void TakeText(const JsonFields& fields, const ChatTemplate& chat_template,
              v1::TokenizeRequest* out) {
  if (fields.Find("messages") != nullptr) {
    out->set_text(chat_template.Render(ReadMessages(fields)));
  } else if (const std::string* prompt = fields.String("prompt")) {
    out->set_text(*prompt);
  } else if (fields.violations()->empty()) {
    fields.Refuse("prompt", "is required, unless there are messages");
  }
}

void AppendToken(const char* name, int32_t id, const Tokenizer& tokenizer, std::string* out) {
  absl::StrAppend(out, ",\"", name, "_token\":");
  if (id < 0 || tokenizer.Piece(id).empty()) {
    out->append("null");
  } else {
    AppendJsonString(tokenizer.Piece(id), out);
  }
  absl::StrAppend(out, ",\"", name, "_token_id\":", id < 0 ? "null" : absl::StrCat(id));
}

}  // namespace

absl::StatusOr<std::string> TokenizeJson(absl::string_view body, const ChatTemplate& chat_template,
                                         const RequestBounds& bounds, const Tokenizer& tokenizer,
                                         const v1::Model& model) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const JsonFields fields(*json, &violations);
  v1::TokenizeRequest message;
  if (const std::string* name = fields.String("model")) message.set_model(*name);
  TakeText(fields, chat_template, &message);
  if (fields.Find("add_special_tokens") != nullptr) {
    message.set_add_special_tokens(fields.Bool("add_special_tokens"));
  }
  const bool pieces = fields.Bool("return_token_strs");
  absl::Status status = violations.ToStatus();
  v1::TokenizeResponse response;
  if (status.ok()) status = Tokenize(message, bounds, tokenizer, &response);
  if (!status.ok()) return status;
  std::string out = absl::StrCat("{\"count\":", response.token_ids_size(),
                                 ",\"max_model_len\":", ContextLengthJson(model), ",\"tokens\":[",
                                 absl::StrJoin(response.token_ids(), ","), "],\"token_strs\":");
  if (!pieces) return out + "null}";
  const char* separator = "[";
  for (const std::string& piece : response.pieces()) {
    out += separator;
    AppendJsonString(piece, &out);
    separator = ",";
  }
  return out + (response.pieces_size() == 0 ? "[]}" : "]}");
}

absl::StatusOr<std::string> DetokenizeJson(absl::string_view body, const RequestBounds& bounds,
                                           const Tokenizer& tokenizer) {
  const absl::StatusOr<nlohmann::json> json = ParseJsonBody(body);
  if (!json.ok()) return json.status();
  FieldViolations violations;
  const JsonFields fields(*json, &violations);
  v1::DetokenizeRequest message;
  if (const std::string* name = fields.String("model")) message.set_model(*name);
  if (const nlohmann::json* tokens = fields.Find("tokens")) {
    TakeTokens("tokens", *tokens, &violations, message.mutable_token_ids());
  } else {
    fields.Refuse("tokens", "is required");
  }
  absl::Status status = violations.ToStatus();
  v1::DetokenizeResponse response;
  if (status.ok()) status = Detokenize(message, bounds, tokenizer, &response);
  if (!status.ok()) return status;
  std::string out = "{\"prompt\":";
  AppendJsonString(response.text(), &out);
  return out + "}";
}

std::string TokenizerInfoJson(const Tokenizer& tokenizer, const v1::Model& model) {
  std::string out = "{\"tokenizer_class\":";
  AppendJsonString(tokenizer.kind(), &out);
  absl::StrAppend(&out, ",\"vocab_size\":", model.vocab_size(),
                  ",\"model_max_length\":", ContextLengthJson(model));
  AppendToken("bos", model.bos_token_id(), tokenizer, &out);
  AppendToken("eos", model.eos_token_ids_size() > 0 ? model.eos_token_ids(0) : -1, tokenizer, &out);
  AppendToken("pad", -1, tokenizer, &out);
  out += ",\"chat_template\":null}";
  return out;
}

// States of one size have no bound.
std::string ContextLengthJson(const v1::Model& model) {
  const int64_t tokens = model.limits().max_attention_tokens();
  return tokens > 0 ? absl::StrCat(tokens) : "null";
}

}  // namespace sluice
