#include "engine/checkpoint/families/mamba_layer.h"

#include <algorithm>
#include <optional>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// One convolution over x, B and C: here one for each.
void AddConv(const MixerSpec& m, TensorScope* scope) {
  using W = MixerWeights;
  const int64_t channels = m.v.width + m.k.width + m.q.width;
  const auto add = [&](int64_t first_row, int64_t rows, Into weight, Into bias) {
    scope->AddDerived({"conv1d.weight"}, {channels, 1, m.conv.taps}, weight, rows * m.conv.taps,
                      TakeRows({{first_row, rows}}, m.conv.taps));
    if (!m.conv.bias) return;
    scope->AddDerived({"conv1d.bias"}, {channels}, bias, rows, TakeRows({{first_row, rows}}, 1));
  };
  add(0, m.v.width, &W::conv_v, &W::conv_v_bias);
  add(m.v.width, m.k.width, &W::conv_k, &W::conv_k_bias);
  add(m.v.width + m.k.width, m.q.width, &W::conv_q, &W::conv_q_bias);
}

bool ScalesParts(const MambaConfig& parts) {
  return std::any_of(parts.part_scales.begin(), parts.part_scales.end(),
                     [](float scale) { return scale != 1.0f; });
}

// The factors of the columns z, x, B, C and dt, each times `all`.
std::vector<Run> PartRuns(const MixerSpec& m, const MambaConfig& parts, float all) {
  const Columns columns[] = {m.out_gate, m.v, m.k, m.q, m.gate_in};
  std::vector<Run> runs;
  for (size_t i = 0; i < parts.part_scales.size(); ++i) {
    runs.push_back({columns[i].width, all * parts.part_scales[i]});
  }
  return runs;
}

Derive Times(std::vector<Run> runs) {
  return [runs = std::move(runs)](std::vector<float> values) {
    auto value = values.begin();
    for (const Run& run : runs) {
      for (int64_t i = 0; i < run.count; ++i) *value++ *= run.value;
    }
    return values;
  };
}

}  // namespace

void ReadTimeStepLimit(const char* name, ConfigReader* reader, MambaShape* s) {
  const Json* limit = reader->Find({name});
  if (limit == nullptr || limit->is_null()) return;
  std::optional<double> least, most;
  if (limit->is_array() && limit->size() == 2) {
    least = NumberOf((*limit)[0]);
    most = NumberOf((*limit)[1]);
  }
  if (!least || !most || !(*least >= 0 && *least < 1e30 && *least <= *most)) {
    reader->Refuse(absl::StrCat(name, " is ", PrintableValue(*limit),
                                ", must be [least, most] with 0 <= least <= most"));
    return;
  }
  s->dt_min = *least;
  s->dt_max = *most;
}

void ReadMambaFields(ConfigReader* reader, int64_t hidden, int64_t inner, bool used,
                     MambaShape* s) {
  s->heads = reader->Integer({"mamba_n_heads"}, 128, 1, 65536);
  const int64_t expand = reader->Integer({"mamba_expand"}, 2, 1, 64);
  if (inner == 0) inner = expand * hidden;
  const Json* head_dim = reader->Find({"mamba_d_head"});
  const bool says = head_dim != nullptr && *head_dim != "auto";
  s->head_dim = says ? reader->Integer({"mamba_d_head"}, 64, 1, 65536)
                     : std::max<int64_t>(inner / s->heads, 1);
  s->groups = reader->Integer({"mamba_n_groups"}, 1, 1, 1024);
  s->state = reader->Integer({"mamba_d_state"}, 256, 1, 65536);
  s->taps = reader->Integer({"mamba_d_conv"}, 4, 1, 64);
  s->conv_bias = reader->Boolean({"mamba_conv_bias"}, true);
  ReadTimeStepLimit("time_step_limit", reader, s);
  if (!used || !reader->status().ok()) return;
  if (s->inner() != inner) {
    reader->Refuse(absl::StrCat("mamba_n_heads ", s->heads, " times mamba_d_head ", s->head_dim,
                                " is ", s->inner(), ", must be the inner width ", inner));
  }
  if (s->heads % s->groups != 0) {
    reader->Refuse(
        absl::StrCat("mamba_n_groups is ", s->groups, ", must divide mamba_n_heads ", s->heads));
  }
}

MixerSpec MambaMixer(const MambaShape& s, const MambaConfig& parts) {
  MixerSpec m;
  m.decay = Decay::kHead;
  m.gate = GateMap::kMamba2;
  m.q_heads = m.k_heads = s.groups;
  m.v_heads = m.state_heads = s.heads;
  m.key_width = m.dk = s.state;
  m.dv = s.head_dim;
  m.out_gate = {0, s.inner()};            // z
  m.v = {m.out_gate.end(), s.inner()};    // x
  m.k = {m.v.end(), s.groups * s.state};  // B
  m.q = {m.k.end(), s.groups * s.state};  // C
  m.gate_in = {m.q.end(), s.heads};       // dt
  m.in_dim = m.gate_in.end();
  m.scaled_columns = parts.in_scale != 1.0f || ScalesParts(parts);
  m.conv = {.taps = s.taps, .silu = true, .bias = s.conv_bias};
  m.dt_min = static_cast<float>(s.dt_min);
  m.dt_max = s.dt_max > 1e30 ? kInfinity : static_cast<float>(s.dt_max);
  m.skip = s.wide_skip ? Skip::kChannel : Skip::kHead;
  m.out_norm = {.kind = s.gated_norm ? NormKind::kRms : NormKind::kNone, .eps = s.eps};
  m.norm_span = NormSpan::kGroup;
  m.norm_groups = s.groups;
  m.gate_before_norm = !s.norm_before_gate;
  m.out_scale = s.out_scale;
  return m;
}

std::string MambaIdentity(const MambaShape& s, const MambaConfig& parts) {
  return absl::StrCat(" heads=", s.heads, " head_dim=", s.head_dim, " groups=", s.groups,
                      " state=", s.state, " conv_size=", s.taps, " in_bias=", parts.in_bias,
                      " out_bias=", parts.out_bias, " conv_bias=", s.conv_bias,
                      " gated_norm=", s.gated_norm, " norm_before_gate=", s.norm_before_gate,
                      " norm_eps=", s.eps, " dt_min=", s.dt_min, " dt_max=", s.dt_max,
                      " in_scale=", parts.in_scale, " out_scale=", s.out_scale,
                      " part_scales=", absl::StrJoin(parts.part_scales, ","));
}

void MambaTensors(const MixerSpec& m, const MambaConfig& parts, int64_t hidden, TensorScope scope) {
  using W = MixerWeights;
  scope.Add({"in_proj.weight"}, {m.in_dim, hidden}, &W::in);
  if (m.scaled_columns) scope.AddRuns(PartRuns(m, parts, parts.in_scale), &W::in_scale);
  if (parts.in_bias && ScalesParts(parts)) {
    scope.AddDerived({"in_proj.bias"}, {m.in_dim}, &W::in_bias, m.in_dim,
                     Times(PartRuns(m, parts, 1.0f)));
  } else if (parts.in_bias) {
    scope.Add({"in_proj.bias"}, {m.in_dim}, &W::in_bias);
  }
  AddConv(m, &scope);
  scope.Add({"dt_bias"}, {m.state_heads}, &W::gate_bias);
  scope.Add({"A_log"}, {m.state_heads}, &W::a_log);
  scope.Add({"D"}, {m.skip == Skip::kChannel ? m.out_dim() : m.state_heads}, &W::skip);
  if (m.out_norm.kind != NormKind::kNone) {
    scope.Add({"norm.weight"}, {m.out_dim()}, &W::out_norm);
  }
  scope.Add({"out_proj.weight"}, {hidden, m.out_dim()}, &W::out);
  if (parts.out_bias) scope.Add({"out_proj.bias"}, {hidden}, &W::out_bias);
}

}  // namespace sluice
