// TransNormerLLM (arXiv 2307.14995) as its makers' TransnormerForCausalLM has it:
//   S_j <- e^(-s_j (1 - l / (L - 1) + 1e-5)) S_j + k v^T,  o_j = q_j^T S_j, without a scale
// in layer l of L, with s_j ALiBi's slopes; LRPE turns q and k by position in some layers. The norm
// of o spans all heads and comes before the gate u, which has no activation, as the GLU has none.
#include "engine/checkpoint/families/transnormer.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"
#include "kernels/mixer_math.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr float kRmsEps = 1e-6f;
constexpr float kLayerNormEps = 1e-5f;

constexpr NamedValue<FeatureMap> kActivations[] = {
    {"silu", FeatureMap::kSilu},        {"swish", FeatureMap::kSilu},
    {"relu", FeatureMap::kRelu},        {"gelu", FeatureMap::kGelu},
    {"sigmoid", FeatureMap::kSigmoid},  {"elu", FeatureMap::kElu},
    {"1+elu", FeatureMap::kEluPlusOne}, {"2+elu", FeatureMap::kEluPlusTwo},
    {"leak", FeatureMap::kLeakyRelu},   {"sine", FeatureMap::kSine},
};

// The layers that have LRPE: a list of zeros and ones or of booleans, or one value for all if the
// list is missing or empty.
std::vector<bool> ReadLrpeLayers(ConfigReader* reader, int64_t layers) {
  const bool all = reader->OptionalBoolean({"linear_use_lrpe"}).value_or(false);
  const Json* list = reader->Find({"linear_use_lrpe_list"});
  if (list == nullptr || list->is_null() || (list->is_array() && list->empty())) {
    return std::vector<bool>(layers, all);
  }
  std::vector<bool> result;
  if (list->is_array()) {
    for (const Json& value : *list) {
      const bool flag =
          value.is_boolean() || (value.is_number_integer() && (value == 0 || value == 1));
      if (!flag) break;
      result.push_back(value.is_boolean() ? value.get<bool>() : value == 1);
    }
  }
  if (!list->is_array() || result.size() != list->size() ||
      static_cast<int64_t>(result.size()) != layers) {
    reader->Refuse(absl::StrCat("linear_use_lrpe_list is ", PrintableValue(*list),
                                ", must have 0 or 1 for each of the ", layers,
                                " layers (decoder_layers)"));
    result.assign(layers, false);
  }
  return result;
}

struct Shape {
  int64_t hidden, layers, heads, inner, glu;
  FeatureMap act;
  Norm norm;
  bool bias;
};

MixerSpec Mixer(const Shape& s, bool lrpe) {
  MixerSpec m;
  m.decay = Decay::kConst;
  m.gate = GateMap::kNone;
  m.q_heads = m.k_heads = m.v_heads = m.state_heads = s.heads;
  m.key_width = m.dv = s.inner / s.heads;
  m.dk = lrpe ? 2 * m.key_width : m.key_width;
  m.q = {0, s.inner};
  m.k = {m.q.end(), s.inner};
  m.v = {m.k.end(), s.inner};
  m.out_gate = {m.v.end(), s.inner};
  m.in_dim = m.out_gate.end();
  m.q_map = m.k_map = s.act;
  m.rope = lrpe ? Rope::kLrpe : Rope::kNone;
  m.out_norm = s.norm;
  m.norm_span = NormSpan::kAll;
  m.out_act = Act::kIdentity;
  return m;
}

void Parse(ConfigReader* reader, ModelConfig* config) {
  Shape s = {};
  s.hidden = reader->Integer({"decoder_embed_dim"}, 1024, 1, 65536);
  s.layers = reader->Integer({"decoder_layers"}, 24, 1, 1024);
  s.heads = reader->Integer({"decoder_attention_heads"}, 8, 1, 1024);
  s.inner = reader->Integer({"hidden_dim"}, 1024, 1, 65536);
  const int64_t glu = reader->Integer({"glu_dim"}, 2816, -1, 1 << 20);
  const int64_t vocab = reader->Integer({"vocab_size"}, 64000, 1, 1 << 24);
  const bool unscaled = reader->Boolean({"no_scale_embedding"}, false);
  s.bias = reader->Boolean({"bias"}, false);
  s.act = reader->Word<FeatureMap>(
      "linear_act_fun", FeatureMap::kSilu, kActivations, /*nullable=*/false,
      "\"silu\", \"swish\", \"relu\", \"gelu\", \"sigmoid\", \"elu\", \"1+elu\", \"2+elu\", "
      "\"leak\" or \"sine\"");
  const std::vector<bool> lrpe = ReadLrpeLayers(reader, s.layers);
  reader->RequireNull("quantization_config", "quantized weights");
  // It is no field of the class, and transformers' default is true.
  config->tied = reader->Boolean({"tie_word_embeddings"}, true);
  // Any name but the default is a LayerNorm there.
  const Json* norm_type = reader->Find({"norm_type"});
  const bool simple = norm_type == nullptr || *norm_type == "simplermsnorm";
  if (norm_type != nullptr && !norm_type->is_string()) {
    reader->Refuse(absl::StrCat("norm_type is ", PrintableValue(*norm_type), ", must be a word"));
  }
  s.norm = simple ? Norm{.kind = NormKind::kRms, .affine = false, .eps = kRmsEps}
                  : Norm{.kind = NormKind::kLayer, .affine = true, .eps = kLayerNormEps};
  s.glu = glu == -1 ? s.hidden : glu;
  if (s.glu < 1) reader->Refuse(absl::StrCat("glu_dim is ", glu, ", must be -1 or positive"));
  if (s.layers < 2) {
    reader->Refuse("decoder_layers is 1, must be at least 2: a layer's decay divides by one less");
  }
  if (s.inner % s.heads != 0) {
    reader->Refuse(
        absl::StrCat("decoder_attention_heads is ", s.heads, ", must divide hidden_dim ", s.inner));
  }
  if (std::find(lrpe.begin(), lrpe.end(), true) != lrpe.end() && s.inner != s.hidden) {
    reader->Refuse(absl::StrCat("hidden_dim is ", s.inner, ", must be decoder_embed_dim ", s.hidden,
                                " where linear_use_lrpe_list has a layer"));
  }
  if (!reader->status().ok()) return;

  ModelSpec spec;
  spec.vocab = vocab;
  spec.hidden = s.hidden;
  spec.embedding_scale = unscaled ? 1.0f : std::sqrt(static_cast<float>(s.hidden));
  spec.final_norm = s.norm;
  std::string layers;
  for (int64_t i = 0; i < s.layers; ++i) {
    LayerSpec& layer = spec.layers.emplace_back();
    layer.branches.push_back({s.norm, {Mixer(s, lrpe[i])}});
    layer.branches.push_back({s.norm, {MlpSpec{.intermediate = s.glu, .act = Act::kIdentity}}});
    layers.push_back(lrpe[i] ? '1' : '0');
  }
  config->spec = std::move(spec);
  config->biases = s.bias;
  config->identity = absl::StrCat(
      "transnormer vocab=", vocab, " layers=", s.layers, " hidden=", s.hidden, " heads=", s.heads,
      " inner=", s.inner, " intermediate=", s.glu, " act=", static_cast<int>(s.act),
      " lrpe=", layers, " simple_norm=", simple, " bias=", s.bias, " scaled_embedding=", !unscaled);
}

std::vector<float> LogDecays(int64_t heads, int64_t layer, int64_t layers) {
  std::vector<float> values;
  for (int64_t head = 0; head < heads; ++head) {
    values.push_back(
        static_cast<float>(mixer_math::TransNormerLogDecay(head, heads, layer, layers)));
  }
  return values;
}

// Weight and bias of a LayerNorm; the simple norm has neither.
void AddNorm(const Norm& norm, const char* name, int64_t width, Into weight, Into bias,
             TensorScope scope) {
  if (!norm.affine) return;
  scope.Add({absl::StrCat(name, ".weight")}, {width}, weight);
  scope.Add({absl::StrCat(name, ".bias")}, {width}, bias);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const ModelSpec& spec = config.spec;
  const int64_t hidden = spec.hidden;
  const auto layers = static_cast<int64_t>(spec.layers.size());
  TensorScope outside = table->Outside();
  outside.Add({"model.embed_tokens.weight"}, {spec.vocab, hidden}, &Weights::embeddings);
  for (int64_t i = 0; i < layers; ++i) {
    const std::string prefix = absl::StrCat("model.layers.", i, ".");
    const std::vector<BranchSpec>& branches = spec.layers[i].branches;
    const auto& m = std::get<MixerSpec>(branches[0].units[0]);
    const int64_t glu = std::get<MlpSpec>(branches[1].units[0]).intermediate;
    AddNorm(branches[0].norm, "token_norm", hidden, &BranchWeights::norm, &BranchWeights::norm_bias,
            table->Branch(i, 0, prefix));
    TensorScope mixer = table->Unit(i, 0, 0, absl::StrCat(prefix, "token_mixer."));
    mixer.Add({"qkvu_proj.weight"}, {m.in_dim, hidden}, &MixerWeights::in);
    if (config.biases) mixer.Add({"qkvu_proj.bias"}, {m.in_dim}, &MixerWeights::in_bias);
    if (m.rope == Rope::kLrpe) {
      mixer.Add({"lrpe.theta"}, {m.q_heads, 1, m.key_width}, &MixerWeights::theta);
    }
    mixer.AddValues(LogDecays(m.state_heads, i, layers), &MixerWeights::log_decay);
    AddNorm(m.out_norm, "norm", m.out_dim(), &MixerWeights::out_norm, &MixerWeights::out_norm_bias,
            mixer);
    mixer.Add({"out_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
    if (config.biases) mixer.Add({"out_proj.bias"}, {hidden}, &MixerWeights::out_bias);
    AddNorm(branches[1].norm, "channel_norm", hidden, &BranchWeights::norm,
            &BranchWeights::norm_bias, table->Branch(i, 1, prefix));
    TensorScope mlp = table->Unit(i, 1, 0, absl::StrCat(prefix, "channel_mixer."));
    mlp.Add({"l1.weight"}, {glu, hidden}, &MlpWeights::gate_up);
    mlp.Add({"l2.weight"}, {glu, hidden}, &MlpWeights::gate_up);
    mlp.Add({"l3.weight"}, {hidden, glu}, &MlpWeights::down);
    if (!config.biases) continue;
    mlp.Add({"l1.bias"}, {glu}, &MlpWeights::gate_bias);
    mlp.Add({"l2.bias"}, {glu}, &MlpWeights::up_bias);
    mlp.Add({"l3.bias"}, {hidden}, &MlpWeights::down_bias);
  }
  AddNorm(spec.final_norm, "model.final_norm", hidden, &Weights::norm, &Weights::norm_bias,
          outside);
  if (!config.tied || files.Has("lm_head.weight")) {
    outside.Add({"lm_head.weight"}, {spec.vocab, hidden}, &Weights::lm_head);
  }
}

}  // namespace

const Family kTransNormerFamily = {"transnormer", &Parse, &Tensors};

}  // namespace sluice
