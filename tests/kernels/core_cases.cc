#include "tests/kernels/core_cases.h"

#include <algorithm>
#include <cmath>
#include <random>

namespace sluice {
namespace {

double Sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double Softplus(double x) { return std::max(x, 0.0) + std::log1p(std::exp(-std::abs(x))); }

struct Heads {
  int64_t q, k, v, state;
};

CoreCase Make(const std::string& name, Heads heads, int64_t dk, int64_t dv, Decay decay,
              GateMap gate, bool normaliser) {
  CoreCase c;
  c.name = name;
  MixerSpec& s = c.spec;
  s.decay = decay;
  s.gate = gate;
  s.q_heads = heads.q;
  s.k_heads = heads.k;
  s.v_heads = heads.v;
  s.state_heads = heads.state;
  s.key_width = s.dk = dk;
  s.dv = dv;
  s.q = {0, heads.q * dk};
  s.k = {s.q.end(), heads.k * dk};
  s.v = {s.k.end(), heads.v * dv};
  s.gate_in = {s.v.end(), decay == Decay::kHead ? heads.state : 0};
  if (gate == GateMap::kHgrn2) s.gate_in = s.k;
  s.in_dim = std::max(s.v.end(), s.gate_in.end());
  s.q_scale = static_cast<float>(1 / std::sqrt(static_cast<double>(dk)));
  s.normaliser = normaliser;
  s.out_norm.kind = NormKind::kNone;
  return c;
}

CoreCase None(const std::string& name, Heads heads, int64_t dk, int64_t dv, bool normaliser) {
  CoreCase c = Make(name, heads, dk, dv, Decay::kNone, GateMap::kNone, normaliser);
  // Features that a normaliser divides by are not negative.
  if (normaliser) c.spec.q_map = c.spec.k_map = FeatureMap::kEluPlusOne;
  return c;
}

CoreCase Const(const std::string& name, Heads heads, int64_t dk, int64_t dv,
               std::vector<float> log_decay) {
  CoreCase c = Make(name, heads, dk, dv, Decay::kConst, GateMap::kNone, false);
  c.log_decay = std::move(log_decay);
  return c;
}

CoreCase Mamba2(const std::string& name, Heads heads, int64_t dk, int64_t dv, double a,
                double scale) {
  CoreCase c = Make(name, heads, dk, dv, Decay::kHead, GateMap::kMamba2, false);
  c.spec.dt_max = INFINITY;
  for (int64_t head = 0; head < heads.state; ++head) {
    c.gate_bias.push_back(-3.0f + 0.5f * static_cast<float>(head));
    c.a_log.push_back(static_cast<float>(std::log(a * static_cast<double>(head + 1))));
  }
  c.input_scale = scale;
  return c;
}

// The delta rule, with unit keys and queries as all its models have them.
CoreCase Delta(const std::string& name, Heads heads, int64_t dk, int64_t dv, Decay decay,
               GateMap gate, float beta_max) {
  CoreCase c = Make(name, heads, dk, dv, decay, gate, false);
  MixerSpec& s = c.spec;
  s.core = Core::kDelta;
  s.q_norm = s.k_norm = QkNorm::kL2;
  s.beta_max = beta_max;
  if (decay == Decay::kKey) s.gate_in = {s.v.end(), 5};
  s.beta = {std::max(s.v.end(), s.gate_in.end()), heads.state};
  s.in_dim = s.beta.end();
  if (decay == Decay::kNone) return c;
  for (int64_t head = 0; head < heads.state; ++head) {
    c.a_log.push_back(-1.0f + 0.7f * static_cast<float>(head));
  }
  const int64_t gates = decay == Decay::kKey ? heads.state * dk : heads.state;
  for (int64_t i = 0; i < gates; ++i) c.gate_bias.push_back(-4.0f + static_cast<float>(i % 7));
  if (decay != Decay::kKey) return c;
  for (int64_t i = 0; i < gates * s.gate_in.width; ++i) {
    c.gate.push_back(0.1f * static_cast<float>(i * 37 % 19 - 9));
  }
  return c;
}

// x (n) in fp64, normed as QkNorm::kL2.
std::vector<double> Unit(const float* x, int64_t n) {
  double sum = 1e-6;
  for (int64_t i = 0; i < n; ++i) sum += double{x[i]} * x[i];
  std::vector<double> unit;
  for (int64_t i = 0; i < n; ++i) unit.push_back(x[i] / std::sqrt(sum));
  return unit;
}

void AddDeltaCases(std::vector<CoreCase>* cases) {
  const auto none = [&](const std::string& name, Heads heads, int64_t dk, int64_t dv, float most) {
    cases->push_back(Delta(name, heads, dk, dv, Decay::kNone, GateMap::kNone, most));
  };
  none("delta", {2, 2, 2, 2}, 16, 16, 1);
  none("delta_negative", {2, 2, 2, 2}, 32, 64, 2);
  none("delta_odd", {3, 3, 3, 3}, 13, 7, 1);
  none("delta_wide", {1, 1, 1, 1}, 256, 80, 1);
  none("delta_same_keys", {2, 2, 2, 2}, 16, 32, 2);
  cases->back().same_keys = true;
  // Each token reflects the state at the same key, which no sigmoid reaches. All below the diagonal
  // of a chunk's system is near 2, and so is its inverse: a rounding of the products of keys, 6e-8,
  // comes back up to 2 * 64 times as large, whatever the way to solve it.
  none("delta_reflections", {2, 2, 2, 2}, 16, 32, 2);
  cases->back().spec.beta.width = 0;
  cases->back().same_keys = true;
  cases->back().tolerance = 2e-5;
  // Values have more heads than keys.
  cases->push_back(
      Delta("delta_head", {2, 2, 6, 6}, 16, 16, Decay::kHead, GateMap::kGatedDelta, 1));
  cases->push_back(
      Delta("delta_head_strong", {1, 1, 3, 3}, 20, 24, Decay::kHead, GateMap::kGatedDelta, 2));
  cases->back().input_scale = 40;
  cases->push_back(
      Delta("delta_head_slow", {2, 2, 2, 2}, 128, 128, Decay::kHead, GateMap::kGatedDelta, 1));
  cases->back().gate_bias = {-14.0f, -9.0f};
  cases->push_back(Delta("delta_key", {2, 2, 4, 4}, 16, 32, Decay::kKey, GateMap::kKda, 1));
  cases->push_back(Delta("delta_key_strong", {2, 2, 2, 2}, 12, 20, Decay::kKey, GateMap::kKda, 2));
  cases->back().input_scale = 40;
  cases->push_back(
      Delta("delta_key_bounded", {3, 3, 3, 3}, 24, 16, Decay::kKey, GateMap::kKdaBounded, 1));
  cases->back().spec.log_gate_min = -5.0f;
  cases->back().same_keys = true;
}

}  // namespace

std::vector<CoreCase> CoreCases() {
  std::vector<CoreCase> cases;
  cases.push_back(None("none", {2, 2, 2, 2}, 16, 16, false));
  cases.push_back(None("none_grouped", {4, 2, 2, 2}, 32, 64, true));
  cases.push_back(None("none_odd", {3, 1, 1, 1}, 13, 7, true));
  cases.push_back(None("none_wide", {1, 1, 1, 1}, 256, 80, true));
  // RetNet: grouped heads share keys and values and not the state.
  cases.push_back(Const(
      "const", {4, 2, 2, 4}, 32, 64,
      {std::log1p(-0x1p-5f), std::log1p(-0x1p-6f), std::log1p(-0x1p-7f), std::log1p(-0x1p-14f)}));
  // TransNormerLLM's last layer hardly decays; the first of these heads forgets in one token.
  cases.push_back(Const("const_extremes", {3, 3, 3, 3}, 24, 24, {-150.0f, -5e-6f, -1.0f}));
  // Mamba-2: queries and keys are shared by groups of heads.
  cases.push_back(Mamba2("head", {2, 2, 6, 6}, 16, 16, 1, 1));
  cases.push_back(Mamba2("head_odd", {1, 1, 3, 3}, 20, 24, 2, 1));
  cases.push_back(Mamba2("head_strong", {1, 1, 4, 4}, 32, 64, 20, 8));
  cases.push_back(
      Make("head_grouped_queries", {4, 2, 2, 2}, 16, 24, Decay::kHead, GateMap::kGla, true));
  cases.back().gate_bias = {1.0f, 4.0f};
  cases.back().spec.q_map = cases.back().spec.k_map = FeatureMap::kEluPlusOne;
  cases.push_back(Make("key_hgrn2", {2, 2, 2, 2}, 16, 32, Decay::kKey, GateMap::kHgrn2, false));
  cases.push_back(
      Make("key_hgrn2_strong", {2, 2, 2, 2}, 12, 20, Decay::kKey, GateMap::kHgrn2, false));
  cases.back().input_scale = 30;
  cases.push_back(
      Make("key_lightnet", {2, 2, 2, 2}, 16, 32, Decay::kKey, GateMap::kLightNet, false));
  cases.push_back(
      Make("key_lightnet_strong", {3, 3, 3, 3}, 8, 16, Decay::kKey, GateMap::kLightNet, false));
  cases.back().input_scale = 20;
  AddDeltaCases(&cases);
  for (CoreCase& c : cases) {
    if (c.spec.gate != GateMap::kHgrn2) continue;
    for (int64_t i = 0; i < c.spec.state_heads * c.spec.dk; ++i) {
      c.lower_bound.push_back(i % 3 == 0 ? 0.0f : 0.05f * static_cast<float>(i % 16));
    }
  }
  return cases;
}

std::vector<float> CoreInputs(const CoreCase& c, int64_t rows, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<double> normal;
  std::vector<float> in(rows * c.spec.in_dim);
  Columns gate = c.spec.gate_in;
  if (c.spec.gate == GateMap::kLightNet) gate = c.spec.k;
  for (size_t i = 0; i < in.size(); ++i) {
    const auto column = static_cast<int64_t>(i) % c.spec.in_dim;
    const bool of_gate = column >= gate.offset && column < gate.end();
    in[i] = static_cast<float>(normal(random) * (of_gate ? c.input_scale : 1.0));
    if (c.same_keys && column >= c.spec.k.offset && column < c.spec.k.end()) {
      in[i] = static_cast<float>(1 + column % 3) + 0.01f * in[i];
    }
  }
  return in;
}

ReferenceCore::ReferenceCore(const CoreCase* c) : case_(c) {
  const MixerSpec& s = c->spec;
  s_.resize(s.state_heads * s.dk * s.dv);
  z_.resize(s.state_heads * s.dk);
  log_sum_.resize(s.state_heads * s.dk);
}

std::vector<double> ReferenceCore::DeltaLogDecays(const float* in) const {
  const MixerSpec& s = case_->spec;
  std::vector<double> decays(s.state_heads * s.dk);
  if (s.decay == Decay::kNone) return decays;
  for (int64_t i = 0; i < s.state_heads * s.dk; ++i) {
    const int64_t head = i / s.dk;
    const double rate = std::exp(double{case_->a_log[head]});
    double raw = case_->gate_bias[s.decay == Decay::kKey ? i : head];
    if (s.decay == Decay::kHead) raw += in[s.gate_in.offset + head];
    for (int64_t c = 0; s.decay == Decay::kKey && c < s.gate_in.width; ++c) {
      raw += double{case_->gate[i * s.gate_in.width + c]} * in[s.gate_in.offset + c];
    }
    decays[i] = s.gate == GateMap::kKdaBounded ? s.log_gate_min * Sigmoid(rate * raw)
                                               : -rate * Softplus(raw);
  }
  return decays;
}

std::vector<double> ReferenceCore::DeltaStep(const float* in) {
  const MixerSpec& s = case_->spec;
  const std::vector<double> log_decays = DeltaLogDecays(in);
  std::vector<double> o(s.out_dim());
  for (int64_t head = 0; head < s.state_heads; ++head) {
    const int64_t key_head = head / (s.state_heads / s.k_heads);
    const std::vector<double> q = Unit(in + s.q.offset + key_head * s.dk, s.dk);
    const std::vector<double> k = Unit(in + s.k.offset + key_head * s.dk, s.dk);
    const double beta = s.beta_max * (s.beta.width > 0 ? Sigmoid(in[s.beta.offset + head]) : 1.0);
    for (int64_t j = 0; j < s.dv; ++j) {
      double* column = s_.data() + head * s.dk * s.dv + j;
      double said = 0;
      for (int64_t i = 0; i < s.dk; ++i) {
        column[i * s.dv] *= std::exp(log_decays[head * s.dk + i]);
        said += k[i] * column[i * s.dv];
      }
      const double u = beta * (in[s.v.offset + head * s.dv + j] - said);
      for (int64_t i = 0; i < s.dk; ++i) {
        column[i * s.dv] += k[i] * u;
        o[head * s.dv + j] += s.q_scale * q[i] * column[i * s.dv];
      }
    }
  }
  return o;
}

std::vector<double> ReferenceCore::Step(const float* in) {
  const MixerSpec& s = case_->spec;
  if (s.core == Core::kDelta) return DeltaStep(in);
  const auto feature = [&](double x) {
    if (s.q_map == FeatureMap::kEluPlusOne) return x > 0 ? x + 1 : std::exp(x);
    return x;
  };
  std::vector<double> o(s.out_dim());
  for (int64_t head = 0; head < s.state_heads; ++head) {
    const float* raw_k = in + s.k.offset + head / (s.state_heads / s.k_heads) * s.dk;
    const float* raw_v = in + s.v.offset + head / (s.state_heads / s.v_heads) * s.dv;
    double decay = 1, dt = 1;
    if (s.decay == Decay::kConst) decay = std::exp(double{case_->log_decay[head]});
    if (s.decay == Decay::kHead) {
      const double raw = double{in[s.gate_in.offset + head]} + case_->gate_bias[head];
      if (s.gate == GateMap::kMamba2) {
        dt = Softplus(raw);
        decay = std::exp(-dt * std::exp(double{case_->a_log[head]}));
      } else {
        decay = std::exp(-Softplus(-raw) / 16);
      }
    }
    for (int64_t i = 0; i < s.dk; ++i) {
      const int64_t key = head * s.dk + i;
      double k = feature(raw_k[i]);
      if (s.gate == GateMap::kHgrn2) {
        const double bound = case_->lower_bound[key];
        decay = bound + (1 - bound) * Sigmoid(raw_k[i]);
        k = (1 - bound) * Sigmoid(-double{raw_k[i]});
      }
      if (s.gate == GateMap::kLightNet) {
        const double before = log_sum_[key];
        log_sum_[key] = fresh_ ? raw_k[i]
                               : std::max(before, double{raw_k[i]}) +
                                     std::log1p(std::exp(-std::abs(before - raw_k[i])));
        decay = fresh_ ? 1 : std::exp(before - log_sum_[key]);
        k = std::exp(raw_k[i] - log_sum_[key]);
      }
      z_[key] = decay * z_[key] + k;
      double* row = s_.data() + key * s.dv;
      for (int64_t j = 0; j < s.dv; ++j) row[j] = decay * row[j] + k * dt * raw_v[j];
    }
  }
  for (int64_t head = 0; head < s.heads(); ++head) {
    const int64_t state = head / (s.heads() / s.state_heads);
    const float* q = in + s.q.offset + head / (s.heads() / s.q_heads) * s.dk;
    double den = 0;
    for (int64_t i = 0; i < s.dk; ++i) {
      const double x = feature(q[i]) * s.q_scale;
      den += x * z_[state * s.dk + i];
      const double* row = s_.data() + (state * s.dk + i) * s.dv;
      for (int64_t j = 0; j < s.dv; ++j) o[head * s.dv + j] += x * row[j];
    }
    if (!s.normaliser) continue;
    for (int64_t j = 0; j < s.dv; ++j) o[head * s.dv + j] /= den + 1e-10;
  }
  fresh_ = false;
  return o;
}

}  // namespace sluice
