// DeltaNet (arXiv 2102.11174, 2406.06484) as flash-linear-attention's DeltaNetForCausalLM has it:
//   u = beta (v - S^T k),   S <- S + k u^T,   o = (dk^-1/2 q)^T S
#include "engine/checkpoint/families/delta_net.h"

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_delta.h"

namespace sluice {
namespace {

constexpr NamedValue<FeatureMap> kActivations[] = {
    {"silu", FeatureMap::kSilu},
    {"relu", FeatureMap::kRelu},
    {"elu", FeatureMap::kEluPlusOne},
    {"identity", FeatureMap::kIdentity},
};
constexpr NamedValue<QkNorm> kNorms[] = {{"l2", QkNorm::kL2}, {"sum", QkNorm::kSumAbs}};

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  FlaDeltaShape s;
  ReadFlaDelta(reader, &s);
  s.heads = s.v_heads = reader->Integer({"num_heads"}, 16, 1, 1024);
  s.dk = ReadFlaHeadWidth(reader, "expand_k", 1.0, d, s.heads);
  s.dv = ReadFlaHeadWidth(reader, "expand_v", 1.0, d, s.heads);
  const auto map =
      reader->Word<FeatureMap>("qk_activation", FeatureMap::kSilu, kActivations, /*nullable=*/false,
                               "\"silu\", \"relu\", \"elu\" or \"identity\"");
  const auto norm =
      reader->Word<QkNorm>("qk_norm", QkNorm::kL2, kNorms, /*nullable=*/false, "\"l2\" or \"sum\"");
  const bool has_beta = reader->Boolean({"use_beta"}, true);
  const bool gated = reader->Boolean({"use_gate"}, false);
  // Releases of its maker disagree about the sign of such sums.
  if (norm == QkNorm::kSumAbs && (map == FeatureMap::kSilu || map == FeatureMap::kIdentity)) {
    reader->Refuse(
        "qk_norm is \"sum\", must be \"l2\" where qk_activation is \"silu\" or \"identity\"");
  }
  if (!reader->status().ok()) return;

  MixerSpec m = FlaDeltaMixer(d, s);
  if (map != FeatureMap::kSilu) {
    // Behind the convolution q and k have this map instead, and v its SiLU still.
    m.conv.silu = false;
    m.q_map = m.k_map = map;
    m.v_map = FeatureMap::kSilu;
  }
  m.q_norm = m.k_norm = norm;
  m.out_gate = {m.in_dim, gated ? m.out_dim() : 0};
  m.beta = {m.out_gate.end(), has_beta ? m.state_heads : 0};
  m.in_dim = m.beta.end();
  config->spec = d.Spec(m);
  config->identity =
      absl::StrCat(d.Identity("delta_net"), s.Identity(), " qk_activation=", static_cast<int>(map),
                   " qk_norm=", static_cast<int>(norm), " beta=", has_beta, " output_gate=", gated);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string& prefix,
                         TensorScope scope) {
    AddFlaDeltaInputs(m, hidden, &scope);
    if (m.gated()) scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    if (m.beta.width > 0) scope.Add({"b_proj.weight"}, {m.beta.width, hidden}, &MixerWeights::in);
    AddFlaDeltaRest(m, hidden, files, prefix, &scope);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kDeltaNetFamily = {"delta_net", &Parse, &Tensors};

}  // namespace sluice
