// Mixers other than gla's on the device against the CPU's: every front and every back beside every
// kind of decay, through the backends; and the bits of a row in every company and cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string>

#include "tests/gpu/gpu_testing.h"
#include "tests/gpu/mixer_runner.h"
#include "tests/kernels/core_cases.h"

namespace sluice {
namespace {

// Front rounds queries, keys and values of prompts to bf16, the core rounds o, and back the result.
constexpr double kTolerance = 5e-3;
constexpr double kStateTolerance = 5e-3;

struct MixerCase {
  std::string name;
  MixerSpec spec;
  double gate_bias = 0.0;
};

// q | k | v, heads and widths as given.
MixerSpec Spec(int64_t q_heads, int64_t k_heads, int64_t state_heads, int64_t width, int64_t dv,
               Decay decay, GateMap gate) {
  MixerSpec s;
  s.decay = decay;
  s.gate = gate;
  s.q_heads = q_heads;
  s.k_heads = k_heads;
  s.v_heads = gate == GateMap::kMamba2 ? state_heads : k_heads;
  s.state_heads = state_heads;
  s.key_width = s.dk = width;
  s.dv = dv;
  s.q = {0, q_heads * width};
  s.k = {s.q.end(), k_heads * width};
  s.v = {s.k.end(), s.v_heads * dv};
  s.in_dim = s.v.end();
  s.q_scale = 1 / std::sqrt(static_cast<float>(width));
  s.out_norm = {.eps = 1e-5f};
  return s;
}
void AddGate(MixerSpec* s) {
  s->out_gate = {s->in_dim, s->out_dim()};
  s->in_dim = s->out_gate.end();
}

MixerSpec Retnet(int64_t heads, int64_t kv_heads, int64_t dk, int64_t dv) {
  MixerSpec s = Spec(heads, kv_heads, heads, dk, dv, Decay::kConst, GateMap::kNone);
  s.rope = Rope::kHalves;
  AddGate(&s);
  return s;
}
MixerSpec Mamba2(int64_t heads, int64_t groups, int64_t dk, int64_t dv) {
  MixerSpec s = Spec(groups, groups, heads, dk, dv, Decay::kHead, GateMap::kMamba2);
  s.q_scale = 1.0f;
  AddGate(&s);
  s.gate_in = {s.in_dim, heads};
  s.in_dim = s.gate_in.end();
  s.conv = {.taps = 4, .silu = true, .bias = true};
  s.dt_max = INFINITY;
  s.skip = Skip::kHead;
  s.norm_span = NormSpan::kGroup;
  s.norm_groups = groups;
  s.gate_before_norm = true;
  return s;
}
MixerSpec Hgrn2(int64_t heads, int64_t dk, int64_t dv) {
  MixerSpec s = Spec(heads, heads, heads, dk, dv, Decay::kKey, GateMap::kHgrn2);
  s.gate_in = s.k;
  s.q_map = FeatureMap::kSilu;
  s.norm_span = NormSpan::kAll;
  return s;
}
MixerSpec LightNet(int64_t heads, int64_t dk, int64_t dv) {
  MixerSpec s = Spec(heads, heads, heads, dk, dv, Decay::kKey, GateMap::kLightNet);
  s.out_gate = {s.in_dim, 24};
  s.in_dim = s.out_gate.end();
  s.low_rank_gate = true;
  s.q_map = FeatureMap::kSilu;
  s.norm_span = NormSpan::kAll;
  return s;
}
MixerSpec TransNormer(int64_t heads, int64_t width, bool lrpe) {
  MixerSpec s = Spec(heads, heads, heads, width, width, Decay::kConst, GateMap::kNone);
  s.q_scale = 1.0f;
  s.q_map = s.k_map = FeatureMap::kSilu;
  s.out_act = Act::kIdentity;
  s.norm_span = NormSpan::kAll;
  AddGate(&s);
  if (lrpe) {
    s.rope = Rope::kLrpe;
    s.dk = 2 * width;
  }
  return s;
}
MixerSpec LinearAttn(int64_t heads, int64_t kv_heads, int64_t width, int64_t dv, FeatureMap map) {
  MixerSpec s = Spec(heads, kv_heads, kv_heads, width, dv, Decay::kNone, GateMap::kNone);
  s.q_map = s.k_map = map;
  if (map == FeatureMap::kHedgehog) s.dk = 2 * width;
  if (map == FeatureMap::kDpfp) s.dk = 8 * width;
  return s;
}
// Has what flash-linear-attention's classes have: unit keys and queries, beta, convolutions.
MixerSpec Delta(int64_t heads, int64_t state_heads, int64_t dk, int64_t dv, Decay decay,
                GateMap gate) {
  MixerSpec s = Spec(heads, heads, state_heads, dk, dv, decay, gate);
  s.core = Core::kDelta;
  s.v_heads = state_heads;
  s.v.width = state_heads * dv;
  s.in_dim = s.v.end();
  s.conv = {.taps = 4, .silu = true, .bias = true};
  s.q_norm = s.k_norm = QkNorm::kL2;
  AddGate(&s);
  if (decay == Decay::kKey) {
    s.low_rank_gate = true;
    s.out_act = Act::kSigmoid;
    s.gate_in = {s.v.end(), dv};
    s.out_gate = {s.gate_in.end(), dv};
    s.log_gate_min = -4.0f;  // of the bounded gate
  } else if (decay == Decay::kHead) {
    s.gate_in = {s.out_gate.end(), state_heads};
  }
  s.beta = {std::max(s.out_gate.end(), s.gate_in.end()), state_heads};
  s.in_dim = s.beta.end();
  return s;
}

MixerSpec Softmax(int64_t heads, int64_t kv_heads, int64_t width, int64_t window) {
  MixerSpec s = Spec(heads, kv_heads, kv_heads, width, width, Decay::kNone, GateMap::kNone);
  s.core = Core::kSoftmax;
  s.window = window;
  s.rope = Rope::kTable;
  s.rope_dims = width / 2 * 2;
  s.out_norm.kind = NormKind::kNone;
  return s;
}

std::vector<MixerCase> Cases() {
  std::vector<MixerCase> cases = {
      {"retnet", Retnet(4, 4, 64, 128)},
      {"retnet_gqa", Retnet(6, 2, 24, 40)},
      {"retnet_map", Retnet(2, 2, 32, 32)},
      {"mamba2", Mamba2(8, 1, 64, 64), -2.0},
      {"mamba2_groups", Mamba2(6, 2, 40, 24), -2.0},
      {"mamba2_norm_first", Mamba2(4, 1, 32, 32), -2.0},
      {"mamba2_no_norm", Mamba2(4, 2, 32, 16), -2.0},
      {"hgrn2", Hgrn2(4, 32, 32)},
      {"hgrn2_conv", Hgrn2(3, 24, 40)},
      {"lightnet", LightNet(4, 32, 32)},
      {"lightnet_conv", LightNet(3, 24, 40)},
      {"transnormer", TransNormer(4, 32, false)},
      {"transnormer_lrpe", TransNormer(3, 24, true)},
      {"transnormer_layer_norm", TransNormer(2, 40, false)},
      {"simple_gla", Spec(2, 2, 2, 64, 64, Decay::kHead, GateMap::kGla), 4.0},
      {"elu_normaliser", LinearAttn(4, 2, 32, 64, FeatureMap::kEluPlusOne)},
      {"relu_sums", LinearAttn(2, 2, 40, 48, FeatureMap::kRelu)},
      {"t2r", LinearAttn(2, 2, 72, 40, FeatureMap::kT2r)},
      {"product", LinearAttn(4, 1, 64, 64, FeatureMap::kProduct)},
      {"hedgehog", LinearAttn(2, 2, 160, 64, FeatureMap::kHedgehog)},
      {"dpfp", LinearAttn(2, 2, 16, 32, FeatureMap::kDpfp)},
      {"delta", Delta(3, 3, 64, 64, Decay::kNone, GateMap::kNone)},
      {"delta_maps", Delta(2, 2, 128, 72, Decay::kNone, GateMap::kNone)},
      {"delta_odd", Delta(3, 3, 20, 12, Decay::kNone, GateMap::kNone)},
      {"gated_delta", Delta(2, 6, 40, 24, Decay::kHead, GateMap::kGatedDelta), -2.0},
      {"gated_delta_wide", Delta(1, 2, 256, 512, Decay::kHead, GateMap::kGatedDelta), -2.0},
      {"gated_delta_widest", Delta(1, 1, 320, 40, Decay::kHead, GateMap::kGatedDelta), -2.0},
      {"kda", Delta(2, 4, 32, 32, Decay::kKey, GateMap::kKda), -2.0},
      {"kda_wide", Delta(1, 1, 200, 64, Decay::kKey, GateMap::kKda), -2.0},
      {"kda_bounded", Delta(2, 2, 128, 128, Decay::kKey, GateMap::kKdaBounded), -2.0},
      {"kda_odd", Delta(2, 2, 12, 20, Decay::kKey, GateMap::kKda), -2.0},
      {"softmax", Softmax(2, 2, 64, 0)},
      {"softmax_groups", Softmax(6, 2, 128, 0)},
      {"softmax_gate", Softmax(8, 1, 256, 0)},
      {"softmax_window", Softmax(4, 2, 72, 100)},
      {"softmax_odd", Softmax(3, 1, 21, 0)},
      {"softmax_odd_window", Softmax(2, 2, 36, 70)},
  };
  for (MixerCase& c : cases) {
    MixerSpec& s = c.spec;
    if (c.name == "retnet_map") s.q_map = s.k_map = FeatureMap::kGelu;
    if (c.name == "mamba2_groups") s.skip = Skip::kChannel;
    if (c.name == "mamba2_norm_first") {
      s.gate_before_norm = false;
      s.conv.taps = 7;
    }
    if (c.name == "mamba2_no_norm") s.out_norm.kind = NormKind::kNone;
    if (c.name == "hgrn2_conv" || c.name == "lightnet_conv") s.conv = {.taps = 4, .silu = false};
    if (c.name == "transnormer_layer_norm") s.out_norm.kind = NormKind::kLayer;
    if (c.name == "simple_gla") {
      s.gate_in = {s.in_dim, s.state_heads};
      s.in_dim = s.gate_in.end();
      AddGate(&s);
      // The output gate begins at a multiple of 8 columns.
      s.out_gate.offset = (s.out_gate.offset + 7) / 8 * 8;
      s.in_dim = s.out_gate.end();
    }
    if (c.name == "elu_normaliser" || c.name == "hedgehog" || c.name == "dpfp") s.normaliser = true;
    if (c.name == "relu_sums") s.q_norm = s.k_norm = QkNorm::kSum;
    if (c.name == "softmax_groups") {
      s.q_norm = s.k_norm = QkNorm::kRms;
      s.rope_divisor = 4.0f;
      s.rope_scale = 1.2f;
    }
    if (c.name == "softmax_gate") {
      s.rope_dims = 64;  // the others stay
      s.out_act = Act::kSigmoid;
      AddGate(&s);
    }
    if (c.name == "delta_maps") {
      s.conv = {.taps = 4, .silu = false};
      s.q_map = s.k_map = FeatureMap::kEluPlusOne;
      s.q_norm = s.k_norm = QkNorm::kSumAbs;
      s.v_map = FeatureMap::kSilu;
      s.beta_max = 2.0f;
    }
    if (c.name == "delta_odd") {
      s.conv = {};
      s.q_map = s.k_map = s.v_map = FeatureMap::kSilu;
      s.beta.width = 0;  // beta is 1
    }
  }
  return cases;
}

std::string NameOf(const testing::TestParamInfo<MixerCase>& tested) { return tested.param.name; }

class CudaCoreTest : public testing::TestWithParam<MixerCase> {
 protected:
  MixerRunner Make(bool cuda, int32_t slots, int32_t max_rows) {
    const MixerCase& c = GetParam();
    return MixerRunner(cuda ? CudaOrDie() : Cpu(), cuda, MixerModel(c.spec, 1),
                       RandomMixerValues(c.spec, c.gate_bias, 5), slots, max_rows);
  }
};

TEST_P(CudaCoreTest, AgreesWithTheCpu) {
  const MixerSpec& spec = GetParam().spec;
  MixerRunner cpu = Make(false, 8, 2048), gpu = Make(true, 8, 2048);
  const std::vector<int32_t> tokens(1024);
  std::vector<PromptSegment> prompts;
  int64_t rows = 0, positions[6] = {};
  for (const int32_t length : {1, 64, 65, 17, 600, 1024}) {
    const auto slot = static_cast<int32_t>(prompts.size());
    prompts.push_back({slot, 0, length, tokens.data(), 0});
    positions[slot] = length;
    rows += length;
  }
  const std::vector<float> in = RandomInputs(rows, spec.in_dim, 3);
  const double prompt = RelativeRms(gpu.Run(in, {}, prompts, 0), cpu.Run(in, {}, prompts, 0));
  double decode = 0.0, state = 0.0;
  for (int i = 0; i < 8; ++i) {
    std::vector<DecodeRow> slots;
    for (const int32_t slot : {5, 0, 3, 1, 2}) slots.push_back({slot, 0, positions[slot]++});
    const std::vector<float> row = RandomInputs(slots.size(), spec.in_dim, 100 + i);
    decode = std::max(decode, RelativeRms(gpu.Run(row, slots, {}, 0), cpu.Run(row, slots, {}, 0)));
  }
  for (int32_t slot = 0; slot < 6; ++slot)
    state = std::max(
        state, RelativeRms(gpu.State(slot, positions[slot]), cpu.State(slot, positions[slot])));
  std::printf("core %-22s prompt %.2e  decode %.2e  state %.2e\n", GetParam().name.c_str(), prompt,
              decode, state);
  EXPECT_LE(prompt, kTolerance);
  EXPECT_LE(decode, kTolerance);
  EXPECT_LE(state, kStateTolerance);
}

TEST_P(CudaCoreTest, BitsKeepInCompany) {
  const MixerSpec& spec = GetParam().spec;
  constexpr int32_t kCompany = 24, kAlone = kCompany, kCut = kCompany + 1;
  constexpr int32_t kLength = 512 + 37;
  MixerRunner gpu = Make(true, kCompany + 2, 2048);
  const std::vector<int32_t> tokens(kLength);
  std::vector<PromptSegment> prompts;
  int64_t rows = 0, first = 0;
  for (int32_t slot = 0; slot < kCompany; ++slot) {
    if (slot == 7) first = rows;
    prompts.push_back({slot, 0, slot == 7 ? kLength : 30 + slot, tokens.data(), 0});
    rows += prompts.back().length;
  }
  const int64_t cols = spec.in_dim, out_cols = spec.out_dim();
  const auto part = [](const std::vector<float>& all, int64_t begin, int64_t count, int64_t width) {
    return std::vector<float>(all.begin() + begin * width, all.begin() + (begin + count) * width);
  };
  const std::vector<float> in = RandomInputs(rows, cols, 5), own = part(in, first, kLength, cols);
  const std::vector<float> mine = part(gpu.Run(in, {}, prompts, 0), first, kLength, out_cols);
  EXPECT_EQ(gpu.Run(own, {}, {{kAlone, 0, kLength, tokens.data(), 0}}, 0), mine);
  std::vector<float> cut =
      gpu.Run(part(own, 0, 512, cols), {}, {{kCut, 0, 512, tokens.data(), 0}}, 0);
  const std::vector<float> rest =
      gpu.Run(part(own, 512, 37, cols), {}, {{kCut, 512, 37, tokens.data(), 512}}, 0);
  cut.insert(cut.end(), rest.begin(), rest.end());
  EXPECT_EQ(cut, mine);
  EXPECT_EQ(gpu.State(kAlone, kLength), gpu.State(7, kLength));
  EXPECT_EQ(gpu.State(kCut, kLength), gpu.State(7, kLength));
  std::vector<DecodeRow> many;
  for (int32_t slot = 0; slot < kCompany; ++slot) many.push_back({slot, 0, prompts[slot].length});
  for (int i = 0; i < 3; ++i) {
    if (i > 0) {
      for (DecodeRow& row : many) ++row.position;
    }
    const std::vector<float> row = RandomInputs(kCompany, cols, 50 + i);
    const std::vector<float> out = gpu.Run(row, many, {}, 0);
    EXPECT_EQ(gpu.Run(part(row, 7, 1, cols), {{kAlone, 0, kLength + i}}, {}, 0),
              part(out, 7, 1, out_cols));
  }
  EXPECT_EQ(gpu.State(kAlone, kLength + 3), gpu.State(7, kLength + 3));
  // Through the host, and copied: the rest of the sequence is the same.
  const std::vector<float> state = gpu.State(7, kLength + 3);
  for (const Ticket moved : {gpu.backend()->WriteState(kCut, state.data(), kLength + 3),
                             gpu.backend()->CopyState(7, kAlone)})
    EXPECT_TRUE(gpu.backend()->Await(moved).ok());
  EXPECT_EQ(gpu.State(kCut, kLength + 3), state);
  const std::vector<float> row = RandomInputs(1, cols, 60);
  const std::vector<float> next = gpu.Run(row, {{7, 0, kLength + 3}}, {}, 0);
  EXPECT_EQ(gpu.Run(row, {{kCut, 0, kLength + 3}}, {}, 0), next);
  EXPECT_EQ(gpu.Run(row, {{kAlone, 0, kLength + 3}}, {}, 0), next);
}

INSTANTIATE_TEST_SUITE_P(AllMixers, CudaCoreTest, testing::ValuesIn(Cases()), NameOf);

// ---- The cases that every backend's core computes, against their recurrence in fp64 ----

class CudaCoreCaseTest : public testing::TestWithParam<CoreCase> {};

TEST_P(CudaCoreCaseTest, AgreesWithTheRecurrenceInFp64) {
  CoreCase c = GetParam();
  for (float& x : c.gate) x = RoundToBf16(x);  // as the device holds it
  const ModelSpec model = MixerModel(c.spec, 1);
  constexpr int32_t kPrompt = 1061, kTokens = kPrompt + 8;
  std::vector<float> in = CoreInputs(c, kTokens, 1);
  for (float& x : in) x = RoundToBf16(x);
  MixerValues values;
  values.log_decay = c.log_decay;
  values.gate = c.gate;
  values.gate_bias = c.gate_bias;
  values.a_log = c.a_log;
  values.lower_bound = c.lower_bound;
  MixerRunner gpu(CudaOrDie(), true, model, values, 2, 2048);
  const auto row = in.begin() + int64_t{kPrompt} * c.spec.in_dim;
  const std::vector<int32_t> tokens(kPrompt);
  std::vector<float> got = gpu.Run({in.begin(), row}, {}, {{1, 0, kPrompt, tokens.data(), 0}}, 0);
  std::vector<float> decoded;
  for (int32_t i = 0; i < kTokens - kPrompt; ++i) {
    const auto at = row + i * c.spec.in_dim;
    const std::vector<float> out = gpu.Run({at, at + c.spec.in_dim}, {{1, 0, kPrompt + i}}, {}, 0);
    decoded.insert(decoded.end(), out.begin(), out.end());
  }
  ReferenceCore reference(&c);
  std::vector<float> expected;
  for (int32_t t = 0; t < kTokens; ++t) {
    const std::vector<double> o = reference.Step(in.data() + t * c.spec.in_dim);
    expected.insert(expected.end(), o.begin(), o.end());
  }
  const auto end_of_prompt = expected.begin() + static_cast<int64_t>(got.size());
  const double prompt = RelativeRms(got, std::vector<double>(expected.begin(), end_of_prompt));
  const double decode = RelativeRms(decoded, std::vector<double>(end_of_prompt, expected.end()));
  std::vector<float> slot = gpu.State(1, kTokens);
  slot.resize(reference.state().size());
  const double state =
      RelativeRms(slot, std::vector<double>(reference.state().begin(), reference.state().end()));
  std::printf("case %-22s prompt %.2e  decode %.2e  state %.2e\n", c.name.c_str(), prompt, decode,
              state);
  EXPECT_LE(prompt, kTolerance);
  EXPECT_LE(decode, kTolerance);
  EXPECT_LE(state, kStateTolerance);
}

INSTANTIATE_TEST_SUITE_P(CoreCases, CudaCoreCaseTest, testing::ValuesIn(CoreCases()),
                         [](const auto& tested) { return tested.param.name; });

}  // namespace
}  // namespace sluice
