#include "engine/checkpoint/families/hf_decoder.h"

#include <algorithm>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {

using Json = nlohmann::json;

ModelSpec HfDecoder::Outside() const {
  ModelSpec spec;
  spec.vocab = vocab;
  spec.hidden = hidden;
  spec.final_norm = norm();
  return spec;
}

std::string HfDecoder::Identity(const char* model_type) const {
  return absl::StrCat(model_type, " vocab=", vocab, " layers=", layers, " hidden=", hidden,
                      " intermediate=", intermediate, " norm_eps=", norm_eps);
}

HfDecoder ReadHfDecoder(ConfigReader* reader, const HfDefaults& defaults, ModelConfig* config) {
  HfDecoder d;
  reader->RequireWord("hidden_act", {"silu", "swish"}, "\"silu\" or \"swish\"");
  reader->RequireNull("quantization_config", "quantized weights");
  d.vocab = reader->Integer({"vocab_size"}, defaults.vocab, 1, 1 << 24);
  d.hidden = reader->Integer({"hidden_size"}, defaults.hidden, 1, 65536);
  d.intermediate = reader->Integer({"intermediate_size"}, defaults.intermediate, 1, 1 << 20);
  d.layers = reader->Integer({"num_hidden_layers"}, defaults.layers, 1, 1024);
  d.norm_eps = static_cast<float>(reader->Number({defaults.eps_name}, defaults.norm_eps, 1e-30, 1));
  config->tied = reader->Boolean({"tie_word_embeddings"}, defaults.tied);
  config->max_position_embeddings =
      reader->Integer({"max_position_embeddings"}, defaults.max_positions, 1, int64_t{1} << 40);
  AttentionShape& s = d.attention;
  s.heads = reader->Integer({"num_attention_heads"}, defaults.heads, 1, 1024);
  const bool has_kv = reader->Find({"num_key_value_heads"}) != nullptr;
  const int64_t missing_kv = defaults.kv_heads == 0 || has_kv ? s.heads : defaults.kv_heads;
  s.kv_heads = reader->OptionalInteger({"num_key_value_heads"}, 1, 1024).value_or(missing_kv);
  const bool has_dim = reader->Find({"head_dim"}) != nullptr;
  const int64_t missing_dim = defaults.head_dim == 0 || has_dim ? 0 : defaults.head_dim;
  s.head_dim = reader->OptionalInteger({"head_dim"}, 1, 4096).value_or(missing_dim);
  if (s.head_dim == 0) {
    s.head_dim = d.hidden / s.heads;
    if (d.hidden % s.heads != 0) {
      reader->Refuse(absl::StrCat("num_attention_heads is ", s.heads, ", must divide hidden_size ",
                                  d.hidden, " where there is no head_dim"));
    }
  }
  CheckAttention(s, "num_attention_heads", "num_key_value_heads", reader);
  return d;
}

void NoDefaultTokens(ModelConfig* config) {
  config->default_bos = config->default_eos = std::numeric_limits<int32_t>::max();
}

std::vector<LayerKind> ReadLayerKinds(ConfigReader* reader, FieldNames names, int64_t layers,
                                      absl::Span<const NamedValue<LayerKind>> words,
                                      absl::string_view allowed,
                                      const std::vector<LayerKind>& missing) {
  const Json* list = reader->Find(names);
  if (list == nullptr || list->is_null()) return missing;
  const char* name = *names.begin();
  for (const char* other : names) {
    if (reader->Find({other}) == list) name = other;
  }
  if (!list->is_array() || static_cast<int64_t>(list->size()) != layers) {
    reader->Refuse(absl::StrCat(name, " is ", PrintableValue(*list), ", must be a list of ", layers,
                                " words (num_hidden_layers)"));
    return missing;
  }
  std::vector<LayerKind> kinds;
  for (const Json& element : *list) {
    const auto known = std::find_if(words.begin(), words.end(),
                                    [&](const auto& word) { return element == word.name; });
    if (known == words.end()) {
      reader->Refuse(
          absl::StrCat(name, " holds ", PrintableValue(element), ", must hold ", allowed));
      return missing;
    }
    kinds.push_back(known->value);
  }
  return kinds;
}

std::vector<int64_t> ReadLayerIndices(ConfigReader* reader, const char* name, int64_t layers) {
  std::vector<int64_t> indices;
  const Json* list = reader->Find({name});
  if (list == nullptr || list->is_null()) return indices;
  bool good = list->is_array();
  for (size_t i = 0; good && i < list->size(); ++i) {
    const Json& element = (*list)[i];
    good = element.is_number_integer() && element >= 0 && element < layers;
    if (good) indices.push_back(element.get<int64_t>());
  }
  if (good) return indices;
  reader->Refuse(absl::StrCat(name, " is ", PrintableValue(*list),
                              ", must be a list of layers in [0, ", layers - 1, "]"));
  return {};
}

std::string LayerKindsText(const std::vector<LayerKind>& kinds) {
  constexpr const char* kNames[] = {"linear", "softmax", "mlp"};
  std::string text;
  for (const LayerKind kind : kinds) {
    absl::StrAppend(&text, text.empty() ? "" : ",", kNames[static_cast<int>(kind)]);
  }
  return text;
}

void AddGatedMlp(const MlpSpec& mlp, const char* gate, const char* up, const char* down, bool bias,
                 int64_t hidden, TensorScope scope) {
  const auto weight = [](const char* name) { return absl::StrCat(name, ".weight"); };
  const auto bias_of = [](const char* name) { return absl::StrCat(name, ".bias"); };
  scope.Add({weight(gate)}, {mlp.intermediate, hidden}, &MlpWeights::gate_up);
  scope.Add({weight(up)}, {mlp.intermediate, hidden}, &MlpWeights::gate_up);
  if (bias) scope.Add({bias_of(gate)}, {mlp.intermediate}, &MlpWeights::gate_bias);
  if (bias) scope.Add({bias_of(up)}, {mlp.intermediate}, &MlpWeights::up_bias);
  scope.Add({weight(down)}, {hidden, mlp.intermediate}, &MlpWeights::down);
  if (bias) scope.Add({bias_of(down)}, {hidden}, &MlpWeights::down_bias);
}

void AddHead(const ModelConfig& config, const TensorSource& files, TensorScope* outside) {
  if (config.tied && !files.Has("lm_head.weight")) return;
  outside->Add({"lm_head.weight"}, {config.spec.vocab, config.spec.hidden}, &Weights::lm_head);
}

}  // namespace sluice
