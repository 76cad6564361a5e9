// Gated DeltaNet (arXiv 2412.06464) as flash-linear-attention's GatedDeltaNetForCausalLM has it:
//   S <- e^g S,   u = beta (v - S^T k),   S <- S + k u^T,   o = (dk^-1/2 q)^T S
// with g = -e^A_log softplus(a + dt_bias) for each value head.
#include "engine/checkpoint/families/gated_deltanet.h"

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_delta.h"

namespace sluice {
namespace {

constexpr NamedValue<Act> kGateActivations[] = {
    {"swish", Act::kSilu}, {"silu", Act::kSilu}, {"sigmoid", Act::kSigmoid}};

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config, /*default_layers=*/21);
  FlaDeltaShape s;
  ReadFlaDelta(reader, &s);
  ReadFlaDeltaHeads(reader, 6, 256, 2.0, &s);
  const bool gated = reader->Boolean({"use_gate"}, true);
  const auto act = reader->Word<Act>("output_gate_activation", Act::kSilu, kGateActivations,
                                     /*nullable=*/false, "\"swish\", \"silu\" or \"sigmoid\"");
  if (!reader->status().ok()) return;

  MixerSpec m = FlaDeltaMixer(d, s);
  m.decay = Decay::kHead;
  m.gate = GateMap::kGatedDelta;
  m.out_act = act;
  m.out_gate = {m.in_dim, gated ? m.out_dim() : 0};
  m.gate_in = {m.out_gate.end(), m.state_heads};
  m.beta = {m.gate_in.end(), m.state_heads};
  m.in_dim = m.beta.end();
  config->spec = d.Spec(m);
  config->identity = absl::StrCat(d.Identity("gated_deltanet"), s.Identity(),
                                  " output_gate=", gated ? static_cast<int>(act) : -1);
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string& prefix,
                         TensorScope scope) {
    AddFlaDeltaInputs(m, hidden, &scope);
    if (m.gated()) scope.Add({"g_proj.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    scope.Add({"a_proj.weight"}, {m.state_heads, hidden}, &MixerWeights::in);
    scope.Add({"b_proj.weight"}, {m.state_heads, hidden}, &MixerWeights::in);
    scope.Add({"A_log"}, {m.state_heads}, &MixerWeights::a_log);
    scope.Add({"dt_bias"}, {m.state_heads}, &MixerWeights::gate_bias);
    scope.Ignore("D");  // files of December 2024 to March 2025 have it, and no class read it
    AddFlaDeltaRest(m, hidden, files, prefix, &scope);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kGatedDeltaNetFamily = {"gated_deltanet", &Parse, &Tensors};

}  // namespace sluice
