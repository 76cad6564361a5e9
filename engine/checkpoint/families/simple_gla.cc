// Simple GLA as flash-linear-attention's SimpleGatedLinearAttention has it, gated linear attention
// (arXiv 2312.06635) with one gate for each query head instead of one for each key channel:
//   S_j <- exp(logsigmoid(w_j x + b_j) / 16) S_j + k v^T,  o_j = (dk^-1/2 q_j)^T S_j
// Grouped heads share k and v, but not the gate, so not the state. The library has the layer and no
// model of it: its users put the layer into the decoder that its other models share, and these are
// the layer's arguments beside the decoder's fields.
#include "engine/checkpoint/families/simple_gla.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {
namespace {

// The library's own table, as GLA's: its gelu is the tanh form.
constexpr NamedValue<FeatureMap> kFeatureMaps[] = {
    {"relu", FeatureMap::kRelu},          {"sigmoid", FeatureMap::kSigmoid},
    {"silu", FeatureMap::kSilu},          {"swish", FeatureMap::kSilu},
    {"gelu", FeatureMap::kGeluTanh},      {"logsigmoid", FeatureMap::kLogSigmoid},
    {"sqrelu", FeatureMap::kSquaredRelu},
};

constexpr int64_t kGateNormalizer = 16;  // GateMap::kGla's

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  const FlaHeads h = ReadFlaHeads(reader, d, 4, 1.0, 1.0);
  const auto map = reader->Word<FeatureMap>(
      "feature_map", FeatureMap::kIdentity, kFeatureMaps, /*nullable=*/true,
      "null, \"relu\", \"sigmoid\", \"logsigmoid\", \"silu\", \"swish\", \"sqrelu\" or \"gelu\"");
  const int64_t conv_size = reader->Integer({"conv_size"}, 4, 1, 64);
  const bool short_conv = reader->Boolean({"use_short_conv"}, true);
  const bool conv_bias = reader->Boolean({"conv_bias"}, false);
  reader->RequireWord("gate_fn", {"swish", "silu"}, "\"swish\" or \"silu\"");
  const int64_t normalizer =
      reader->Integer({"gate_logit_normalizer"}, kGateNormalizer, 1, 1 << 20);
  if (normalizer != kGateNormalizer) {
    reader->Refuse(absl::StrCat("gate_logit_normalizer is ", normalizer, ", must be 16"));
  }
  if (!reader->status().ok()) return;

  MixerSpec m;
  m.decay = Decay::kHead;
  m.gate = GateMap::kGla;
  m.q_heads = m.state_heads = h.heads;
  m.k_heads = m.v_heads = h.kv_heads;
  m.key_width = m.dk = h.dk;
  m.dv = h.dv;
  m.q = {0, h.heads * h.dk};
  m.k = {m.q.end(), h.kv_heads * h.dk};
  m.v = {m.k.end(), h.kv_heads * h.dv};
  m.out_gate = {m.v.end(), h.heads * h.dv};
  m.gate_in = {m.out_gate.end(), h.heads};  // last, so that a device finds the others aligned
  m.in_dim = m.gate_in.end();
  m.conv = {.taps = short_conv ? conv_size : 0, .silu = true, .bias = short_conv && conv_bias};
  m.q_map = m.k_map = map;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(h.dk));
  m.out_norm = {.affine = d.affine, .eps = d.norm_eps};
  config->spec = d.Spec(m);
  config->identity =
      absl::StrCat(d.Identity("simple_gla"), " heads=", h.heads, " kv_heads=", h.kv_heads,
                   " dk=", h.dk, " dv=", h.dv, " feature_map=", static_cast<int>(map),
                   " conv_size=", m.conv.taps, " conv_bias=", m.conv.bias);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string&, TensorScope scope) {
    scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
    scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
    scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
    scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    scope.Add({"gk_proj.weight"}, {m.gate_in.width, hidden}, &MixerWeights::in);
    scope.Add({"gk_proj.bias"}, {m.state_heads}, &MixerWeights::gate_bias);
    AddShortConvs(m, "q", "k", "v", &scope);
    if (m.conv.bias) {
      scope.Add({"q_conv1d.bias"}, {m.q.width}, &MixerWeights::conv_q_bias);
      scope.Add({"k_conv1d.bias"}, {m.k.width}, &MixerWeights::conv_k_bias);
      scope.Add({"v_conv1d.bias"}, {m.v.width}, &MixerWeights::conv_v_bias);
    }
    // The name depends on whether norm and gate were one kernel in training.
    if (m.out_norm.affine) {
      scope.Add({"g_norm.weight", "g_norm_swish_gate.weight"}, {m.dv}, &MixerWeights::out_norm);
    }
    scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kSimpleGlaFamily = {"simple_gla", &Parse, &Tensors};

}  // namespace sluice
