// LightNet (arXiv 2405.21022) as flash-linear-attention's LightNetForCausalLM has it:
//   z' = logaddexp(z, k),  S <- diag(e^(z - z')) S + e^(k - z') v^T,  o = (e^-1/2 silu(q))^T S
// so that S is a softmax over time of v for each key channel.
#include "engine/checkpoint/families/lightnet.h"

#include <cmath>

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_decoder.h"

namespace sluice {
namespace {

// The class does not hand norm_eps to the norm of its output, which keeps its own default.
constexpr float kOutNormEps = 1e-6f;

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  // One of the two suffices. Both count where both are given: keys are then as wide as they say.
  auto ratio = reader->OptionalInteger({"expand_ratio"}, 1, 65536);
  const auto heads_given = reader->OptionalInteger({"num_heads"}, 1, 1024);
  if (!ratio && !heads_given) ratio = 128;
  const int64_t heads = heads_given ? *heads_given : d.hidden / *ratio;
  if (heads < 1 || d.hidden % heads != 0) {
    reader->Refuse(
        heads_given ? absl::StrCat("num_heads is ", heads, ", must divide hidden_size ", d.hidden)
                    : absl::StrCat("expand_ratio is ", *ratio,
                                   ", must leave heads that divide hidden_size ", d.hidden));
  }
  const int64_t conv_size = reader->Integer({"conv_size"}, 4, 1, 64);
  const bool short_conv = reader->Boolean({"use_short_conv"}, false);
  const int64_t rank = reader->Integer({"gate_low_rank_dim"}, 128, 1, 65536);
  if (!reader->status().ok()) return;

  MixerSpec m;
  m.decay = Decay::kKey;
  m.gate = GateMap::kLightNet;
  m.q_heads = m.k_heads = m.v_heads = m.state_heads = heads;
  m.key_width = m.dk = ratio ? *ratio : d.hidden / heads;
  m.dv = d.hidden / heads;
  m.q = {0, heads * m.dk};
  m.k = {m.q.end(), heads * m.dk};
  m.v = {m.k.end(), d.hidden};
  m.out_gate = {m.v.end(), rank};
  m.low_rank_gate = true;
  m.in_dim = m.out_gate.end();
  m.conv = {.taps = short_conv ? conv_size : 0, .silu = false};
  m.q_map = FeatureMap::kSilu;
  m.q_scale = 1.0f / std::sqrt(static_cast<float>(m.dk));
  m.out_norm = {.affine = d.affine, .eps = kOutNormEps};
  m.norm_span = NormSpan::kAll;
  config->spec = d.Spec(m);
  config->identity = absl::StrCat(d.Identity("lightnet"), " heads=", heads, " dk=", m.dk,
                                  " conv_size=", m.conv.taps, " gate_rank=", rank);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string&, TensorScope scope) {
    scope.Add({"q_proj.weight"}, {m.q.width, hidden}, &MixerWeights::in);
    scope.Add({"k_proj.weight"}, {m.k.width, hidden}, &MixerWeights::in);
    scope.Add({"v_proj.weight"}, {m.v.width, hidden}, &MixerWeights::in);
    scope.Add({"g_proj.0.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    scope.Add({"g_proj.1.weight"}, {hidden, m.out_gate.width}, &MixerWeights::out_gate);
    AddShortConvs(m, "q", "k", "v", &scope);
    if (m.out_norm.affine) scope.Add({"g_norm.weight"}, {hidden}, &MixerWeights::out_norm);
    scope.Add({"o_proj.weight"}, {hidden, hidden}, &MixerWeights::out);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kLightNetFamily = {"lightnet", &Parse, &Tensors};

}  // namespace sluice
