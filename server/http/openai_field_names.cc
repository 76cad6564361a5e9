#include "server/http/openai_field_names.h"

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

// What both calls read.
constexpr absl::string_view kTaken[] = {"model",
                                        "temperature",
                                        "top_p",
                                        "top_k",
                                        "min_p",
                                        "typical_p",
                                        "repetition_penalty",
                                        "repeat_penalty",
                                        "presence_penalty",
                                        "frequency_penalty",
                                        "seed",
                                        "logit_bias",
                                        "stop",
                                        "stop_token_ids",
                                        "include_stop_str_in_output",
                                        "ignore_eos",
                                        "min_tokens",
                                        "min_new_tokens",
                                        "max_tokens",
                                        "max_completion_tokens",
                                        "max_new_tokens",
                                        "n_predict",
                                        "n",
                                        "best_of",
                                        "priority",
                                        "stream",
                                        "stream_options",
                                        "return_token_ids",
                                        "add_special_tokens",
                                        "do_sample",
                                        "logprobs",
                                        "session",
                                        "echo"};
constexpr absl::string_view kTakenByCompletions[] = {"prompt"};
constexpr absl::string_view kTakenByChats[] = {"messages", "top_logprobs"};

// They change no answer: who asks, how the daemon is to run, and parameters of samplers that are
// refused themselves.
constexpr absl::string_view kHarmless[] = {"user",
                                           "metadata",
                                           "store",
                                           "service_tier",
                                           "safety_identifier",
                                           "prompt_cache_key",
                                           "prompt_cache_retention",
                                           "prediction",
                                           "parallel_tool_calls",
                                           "request_id",
                                           "rid",
                                           "cache_salt",
                                           "cache_prompt",
                                           "id_slot",
                                           "slot_id",
                                           "spaces_between_special_tokens",
                                           "xtc_threshold",
                                           "dry_base",
                                           "dry_allowed_length",
                                           "dry_penalty_last_n",
                                           "dry_sequence_breakers",
                                           "mirostat_tau",
                                           "mirostat_eta",
                                           "dynatemp_exponent",
                                           "smoothing_curve",
                                           "guided_decoding_backend",
                                           "timings_per_token",
                                           "return_progress"};

// A field that would change the answer. `neutral`: JSON of the values that do not, the first of
// which is told; empty: nothing, false or "none".
struct RefusedField {
  absl::string_view name;
  absl::string_view neutral = "";
};

constexpr RefusedField kRefused[] = {
    // Tools, and what is no text.
    {"tools"},
    {"tool_choice"},
    {"functions"},
    {"function_call"},
    {"audio"},
    {"web_search_options"},
    {"prompt_embeds"},
    {"input_embeds"},
    {"input_ids"},
    {"inputs"},
    {"images"},
    {"mm_processor_kwargs"},
    {"documents"},
    {"modalities", R"([["text"]])"},
    {"detokenize", "[true]"},
    // The text that the model reads and writes.
    {"suffix"},
    {"system"},
    {"system_prompt"},
    {"input_prefix"},
    {"input_suffix"},
    {"input_extra"},
    {"chat_template"},
    {"chat_template_kwargs"},
    {"add_generation_prompt", "[true]"},
    {"continue_final_message"},
    {"truncate"},
    {"truncate_prompt_tokens"},
    {"truncation_side"},
    {"n_keep", "[0]"},
    {"n_discard", "[0]"},
    {"skip_special_tokens", "[true]"},
    {"return_full_text"},
    {"no_stop_trim"},
    {"reasoning_effort"},
    {"reasoning"},
    {"thinking"},
    {"thinking_token_budget"},
    {"verbosity", R"(["medium"])"},
    {"n_indent", "[0]"},
    {"response_fields"},
    {"return_tokens_as_token_ids"},
    {"sampling_params"},
    {"parameters"},
    {"options"},
    // Constraints.
    {"response_format", R"([{"type": "text"}])"},
    {"structured_outputs"},
    {"guided_json"},
    {"guided_regex"},
    {"guided_choice"},
    {"guided_grammar"},
    {"guided_decoding"},
    {"guided_whitespace_pattern"},
    {"grammar"},
    {"grammar_lazy"},
    {"grammar_triggers"},
    {"regex"},
    {"ebnf"},
    {"json_schema"},
    {"json_object"},
    {"structural_tag"},
    {"choice"},
    {"format"},
    {"allowed_token_ids"},
    {"bad_words"},
    {"bad_words_ids"},
    {"force_words_ids"},
    {"custom_token_bans"},
    {"ban_eos_token"},
    {"suppress_tokens"},
    {"begin_suppress_tokens"},
    {"logits_processors"},
    {"custom_logit_processor"},
    {"custom_params"},
    {"vllm_xargs"},
    {"stop_regex"},
    {"stop_sequences"},
    {"stop_words"},
    // Ways to sample.
    {"use_beam_search"},
    {"beam_width", "[1]"},
    {"num_beams", "[1]"},
    {"length_penalty", "[1]"},
    {"early_stopping"},
    {"samplers"},
    {"sampler_order"},
    {"min_keep", "[0, 1]"},
    {"mirostat", "[0, false]"},
    {"mirostat_mode", "[0]"},
    {"dry_multiplier", "[0]"},
    {"xtc_probability", "[0]"},
    {"dynatemp_range", "[0]"},
    {"dynamic_temperature"},
    {"temperature_last"},
    {"smoothing_factor", "[0]"},
    {"tfs", "[1]"},
    {"tfs_z", "[1]"},
    {"top_a", "[0]"},
    {"top_n_sigma", "[-1, 0]"},
    {"eta_cutoff", "[0]"},
    {"epsilon_cutoff", "[0]"},
    {"typical", "[1]"},
    {"penalty_alpha", "[0]"},
    {"repeat_last_n", "[-1]"},
    {"repetition_penalty_range", "[-1]"},
    {"penalize_nl"},
    {"encoder_repetition_penalty", "[1]"},
    {"no_repeat_ngram_size", "[0]"},
    {"guidance_scale", "[1]"},
    {"negative_prompt"},
    {"watermark"},
    {"t_max_predict_ms", "[0, -1]"},
    {"adaptive_target", "[-1]"},
    // What else the answer is to hold.
    {"prompt_logprobs"},
    {"n_probs", "[0]"},
    {"post_sampling_probs"},
    {"top_n_tokens", "[0]"},
    {"decoder_input_details"},
    {"details"},
    {"return_hidden_states"},
    // Other weights and other states.
    {"adapter_id"},
    {"lora"},
    {"lora_path"},
    {"lora_request"},
    {"session_params"},
    {"kv_transfer_params"},
};

bool IsOff(const Json& value) {
  return ((value.is_array() || value.is_object()) && value.empty()) || value == "" ||
         value == "none" || value == false;
}

void RefuseUnlessNeutral(const JsonFields& fields, const RefusedField& field, const Json& value) {
  if (field.neutral.empty()) {
    if (!IsOff(value)) fields.Refuse(field.name, "is not supported");
    return;
  }
  const Json neutral = Json::parse(field.neutral);
  for (const Json& one : neutral) {
    if (value == one) return;
  }
  fields.Refuse(field.name, absl::StrCat("is supported only as ", neutral.front().dump()));
}

using Names = absl::flat_hash_set<absl::string_view>;

Names KnownNames(bool chat) {
  Names out(std::begin(kTaken), std::end(kTaken));
  out.insert(std::begin(kHarmless), std::end(kHarmless));
  if (chat) {
    out.insert(std::begin(kTakenByChats), std::end(kTakenByChats));
  } else {
    out.insert(std::begin(kTakenByCompletions), std::end(kTakenByCompletions));
  }
  return out;
}

}  // namespace

std::vector<std::string> CheckFieldNames(const JsonFields& fields, bool chat) {
  static const auto* completions = new Names(KnownNames(false));
  static const auto* chats = new Names(KnownNames(true));
  static const auto* refused = [] {
    auto* out = new absl::flat_hash_map<absl::string_view, const RefusedField*>();
    for (const RefusedField& field : kRefused) out->emplace(field.name, &field);
    return out;
  }();
  const Names& known = chat ? *chats : *completions;
  std::vector<std::string> unknown;
  for (auto it = fields.object().begin(); it != fields.object().end(); ++it) {
    const std::string& name = it.key();
    if (it.value().is_null() || known.contains(name)) continue;
    const auto found = refused->find(name);
    if (found == refused->end()) {
      unknown.push_back(name);
    } else {
      RefuseUnlessNeutral(fields, *found->second, it.value());
    }
  }
  return unknown;
}

}  // namespace sluice
