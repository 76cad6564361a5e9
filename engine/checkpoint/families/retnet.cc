// RetNet (arXiv 2307.08621) as flash-linear-attention's RetNetForCausalLM has it:
//   S_j <- (1 - 2^(-5-j)) S_j + k v^T,  o_j = (dk^-1/2 q_j)^T S_j,  q and k rotated by position
// for each query head j: grouped heads share k and v, but not the decay, so not the state.
#include "engine/checkpoint/families/retnet.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_decoder.h"
#include "kernels/mixer_math.h"

namespace sluice {
namespace {

// Transformers' table of activations, not flash-linear-attention's: its gelu is the exact one.
constexpr NamedValue<FeatureMap> kFeatureMaps[] = {
    {"relu", FeatureMap::kRelu},
    {"relu2", FeatureMap::kSquaredRelu},
    {"sigmoid", FeatureMap::kSigmoid},
    {"silu", FeatureMap::kSilu},
    {"swish", FeatureMap::kSilu},
    {"tanh", FeatureMap::kTanh},
    {"gelu", FeatureMap::kGelu},
    {"gelu_new", FeatureMap::kGeluTanh},
    {"gelu_pytorch_tanh", FeatureMap::kGeluTanh},
    {"linear", FeatureMap::kIdentity},
};

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/2, config);
  const FlaHeads h = ReadFlaHeads(reader, d, 8, 1.0, 2.0);
  const auto map = reader->Word<FeatureMap>(
      "feature_map", FeatureMap::kIdentity, kFeatureMaps, /*nullable=*/true,
      "null, \"relu\", \"relu2\", \"sigmoid\", \"silu\", \"swish\", \"tanh\", \"gelu\", "
      "\"gelu_new\", \"gelu_pytorch_tanh\" or \"linear\"");
  const bool gated = reader->Boolean({"use_output_gate"}, true);
  if (reader->OptionalBoolean({"use_short_conv"}).value_or(false)) {
    config->notes.push_back(
        "use_short_conv is true and changes nothing: RetNet's class never hands it to its layers");
  }
  if (h.dk % 2 != 0 || h.dk > 256) {
    reader->Refuse(absl::StrCat("keys of a head (hidden_size times expand_k by num_heads) are ",
                                h.dk, ", must be even and at most 256"));
  }
  if (!reader->status().ok()) return;

  MixerSpec m;
  m.decay = Decay::kConst;
  m.gate = GateMap::kNone;
  m.q_heads = m.state_heads = h.heads;
  m.k_heads = m.v_heads = h.kv_heads;
  m.key_width = m.dk = h.dk;
  m.dv = h.dv;
  m.q = {0, h.heads * h.dk};
  m.k = {m.q.end(), h.kv_heads * h.dk};
  m.v = {m.k.end(), h.kv_heads * h.dv};
  m.out_gate = {m.v.end(), gated ? h.heads * h.dv : 0};
  m.in_dim = m.out_gate.end();
  m.q_map = m.k_map = map;
  m.rope = Rope::kHalves;
  m.rope_theta = 10000.0f;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(h.dk));
  m.out_norm = {.affine = d.affine, .eps = d.norm_eps};
  config->spec = d.Spec(m);
  config->identity =
      absl::StrCat(d.Identity("retnet"), " heads=", h.heads, " kv_heads=", h.kv_heads, " dk=", h.dk,
                   " dv=", h.dv, " feature_map=", static_cast<int>(map), " output_gate=", gated);
}

std::vector<float> LogDecays(int64_t heads) {
  std::vector<float> values;
  for (int64_t head = 0; head < heads; ++head) {
    values.push_back(static_cast<float>(mixer_math::RetNetLogDecay(head)));
  }
  return values;
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string&, TensorScope scope) {
    scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
    scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
    scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
    if (m.gated()) scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    scope.AddValues(LogDecays(m.state_heads), &MixerWeights::log_decay);
    // The name depends on whether norm and gate were one kernel in training.
    if (m.out_norm.affine) {
      scope.Add({"g_norm.weight", "g_norm_swish_gate.weight"}, {m.dv}, &MixerWeights::out_norm);
    }
    scope.Add({"o_proj.weight"}, {hidden, m.out_dim()}, &MixerWeights::out);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kRetNetFamily = {"retnet", &Parse, &Tensors};

}  // namespace sluice
