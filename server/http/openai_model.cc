#include "server/http/openai_model.h"

#include "absl/strings/str_cat.h"
#include "server/http/json_writer.h"
#include "server/http/tokens_json.h"

namespace sluice {

std::string ModelJson(const v1::Model& model, int64_t created) {
  std::string out = "{\"id\":";
  AppendJsonString(model.name(), &out);
  absl::StrAppend(&out, ",\"object\":\"model\",\"created\":", created,
                  ",\"owned_by\":\"sluice\",\"context_length\":", ContextLengthJson(model),
                  ",\"sluice\":{");
  const auto text = [&](const char* name, const std::string& value) {
    absl::StrAppend(&out, "\"", name, "\":");
    AppendJsonString(value, &out);
    out += ',';
  };
  text("architecture", model.architecture());
  text("fingerprint", model.fingerprint());
  text("numerics_id", model.numerics_id());
  text("device", model.device());
  text("weight_dtype", model.weight_dtype());
  absl::StrAppend(&out, "\"parameters\":", model.parameters(),
                  ",\"vocab_size\":", model.vocab_size(), ",\"state_bytes\":", model.state_bytes(),
                  ",\"state_bytes_per_token\":", model.state_bytes_per_token(),
                  ",\"context_length\":", ContextLengthJson(model));
  const v1::Limits& limits = model.limits();
  absl::StrAppend(&out, ",\"limits\":{\"max_prompt_tokens\":", limits.max_prompt_tokens(),
                  ",\"max_new_tokens\":", limits.max_new_tokens(),
                  ",\"max_sequences\":", limits.max_sequences(),
                  ",\"max_stop_strings\":", limits.max_stop_strings(),
                  ",\"max_logprobs\":", limits.max_logprobs(),
                  ",\"max_message_bytes\":", limits.max_message_bytes(), "}}}");
  return out;
}

}  // namespace sluice
