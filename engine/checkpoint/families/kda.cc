// Kimi Delta Attention (arXiv 2510.26692) as flash-linear-attention's KDAForCausalLM has it:
//   S <- diag(e^g) S,   u = beta (v - S^T k),   S <- S + k u^T,   o = (dk^-1/2 q)^T S
// with g of each key channel from f = W1 (W0 x) + dt_bias: -e^A_log softplus(f), or with a
// lower_bound, lower_bound sigmoid(e^A_log f). The output gate has a low rank too.
#include "engine/checkpoint/families/kda.h"

#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families/fla_delta.h"

namespace sluice {
namespace {

void Parse(ConfigReader* reader, ModelConfig* config) {
  const FlaDecoder d = ReadFlaDecoder(reader, /*hidden_ratio=*/4, config);
  FlaDeltaShape s;
  ReadFlaDelta(reader, &s);
  ReadFlaDeltaHeads(reader, 16, 128, 1.0, &s);
  // safe_gate picks a kernel of its maker's. A bound above 0 would let the state grow.
  const auto lower_bound = reader->OptionalNumber({"lower_bound"}, -1e30, 0);
  if (!reader->status().ok()) return;

  MixerSpec m = FlaDeltaMixer(d, s);
  m.decay = Decay::kKey;
  m.gate = lower_bound ? GateMap::kKdaBounded : GateMap::kKda;
  m.log_gate_min = static_cast<float>(lower_bound.value_or(0.0));
  m.low_rank_gate = true;
  m.out_act = Act::kSigmoid;
  m.gate_in = {m.in_dim, s.dv};
  m.out_gate = {m.gate_in.end(), s.dv};
  m.beta = {m.out_gate.end(), m.state_heads};
  m.in_dim = m.beta.end();
  config->spec = d.Spec(m);
  config->identity =
      absl::StrCat(d.Identity("kda"), s.Identity(),
                   " lower_bound=", lower_bound ? absl::StrCat(m.log_gate_min) : "none");
}

void Tensors(const ModelConfig& config, const TensorSource& files, TensorTable* table) {
  const int64_t hidden = config.spec.hidden;
  const auto mixer = [&](int64_t, const MixerSpec& m, const std::string& prefix,
                         TensorScope scope) {
    AddFlaDeltaInputs(m, hidden, &scope);
    scope.Add({"f_proj.0.weight"}, {m.gate_in.width, hidden}, &MixerWeights::in);
    scope.Add({"g_proj.0.weight"}, {m.out_gate.width, hidden}, &MixerWeights::in);
    scope.Add({"b_proj.weight"}, {m.state_heads, hidden}, &MixerWeights::in);
    const int64_t gates = m.state_heads * m.dk;
    scope.Add({"f_proj.1.weight"}, {gates, m.gate_in.width}, &MixerWeights::gate);
    scope.Add({"dt_bias"}, {gates}, &MixerWeights::gate_bias);
    // Newer files with a lower bound have none, and the rate is 1.
    if (m.gate == GateMap::kKdaBounded && !files.Has(absl::StrCat(prefix, "A_log"))) {
      scope.AddValues(std::vector<float>(m.state_heads), &MixerWeights::a_log);
    } else {
      scope.Add({"A_log"}, {m.state_heads}, &MixerWeights::a_log);
    }
    scope.Add({"g_proj.1.weight"}, {m.out_dim(), m.out_gate.width}, &MixerWeights::out_gate);
    scope.Add({"g_proj.1.bias"}, {m.out_dim()}, &MixerWeights::out_gate_bias);
    AddFlaDeltaRest(m, hidden, files, prefix, &scope);
  };
  FlaTensors(config, files, mixer, table);
}

}  // namespace

const Family kKdaFamily = {"kda", &Parse, &Tensors};

}  // namespace sluice
