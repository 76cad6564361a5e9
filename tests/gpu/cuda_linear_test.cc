// The generic linear core on the device against a recurrence in float64: every decay, heads that
// share queries, keys or states, odd sizes, strong decay; and bits in every company and cut.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>

#include "tests/gpu/gpu_testing.h"
#include "tests/gpu/linear_kernels.h"

namespace sluice {
namespace {

using cuda::BackGate;
using cuda::BackNorm;
using cuda::LinearDecay;

constexpr double kTolerance = 5e-3;

std::vector<LinearCase> Cases() {
  using enum LinearDecay;
  std::vector<LinearCase> cases = {
      {.name = "retnet",
       .decay = kConst,
       .q_heads = 4,
       .k_heads = 4,
       .v_heads = 4,
       .state_heads = 4,
       .dk = 256,
       .dv = 512,
       .gate = BackGate::kSilu},
      // Keys and values are shared, states are not.
      {.name = "retnet_gqa",
       .decay = kConst,
       .q_heads = 6,
       .k_heads = 2,
       .v_heads = 2,
       .state_heads = 6,
       .dk = 104,
       .dv = 200,
       .gate = BackGate::kSilu},
      {.name = "mamba2",
       .decay = kHead,
       .v_heads = 24,
       .state_heads = 24,
       .dk = 128,
       .dv = 64,
       .mean_log_decay = -0.3f,
       .key_scale = true,
       .norm_spans = 1,
       .gate = BackGate::kSilu,
       .gate_first = true,
       .skip = true},
      {.name = "mamba2_groups",
       .decay = kHead,
       .q_heads = 2,
       .k_heads = 2,
       .v_heads = 6,
       .state_heads = 6,
       .dk = 64,
       .dv = 32,
       .mean_log_decay = -0.3f,
       .key_scale = true,
       .norm_spans = 2,
       .gate = BackGate::kSilu,
       .gate_first = true,
       .skip = true},
      {.name = "mamba2_strong",
       .decay = kHead,
       .v_heads = 4,
       .state_heads = 4,
       .dk = 72,
       .dv = 40,
       .mean_log_decay = -30.0f,
       .key_scale = true,
       .norm_spans = 1,
       .gate = BackGate::kSilu,
       .skip = true},
      {.name = "transnormer",
       .decay = kConst,
       .q_heads = 4,
       .k_heads = 4,
       .v_heads = 4,
       .state_heads = 4,
       .dk = 256,
       .dv = 128,
       .mean_log_decay = -0.7f,
       .norm_spans = 1,
       .gate = BackGate::kRaw},
      {.name = "layer_norm",
       .decay = kConst,
       .q_heads = 3,
       .k_heads = 3,
       .v_heads = 3,
       .state_heads = 3,
       .dk = 40,
       .dv = 24,
       .norm = BackNorm::kLayer,
       .norm_spans = 1,
       .gate = BackGate::kRaw},
      {.name = "linear_attn",
       .q_heads = 2,
       .k_heads = 2,
       .v_heads = 2,
       .state_heads = 2,
       .dk = 512,
       .dv = 512},
      {.name = "normaliser",
       .q_heads = 6,
       .k_heads = 2,
       .v_heads = 2,
       .state_heads = 2,
       .dk = 96,
       .dv = 136,
       .normaliser = true},
      {.name = "normaliser_decay",
       .decay = kHead,
       .q_heads = 2,
       .k_heads = 2,
       .v_heads = 2,
       .state_heads = 2,
       .dk = 328,
       .dv = 72,
       .normaliser = true,
       .norm = BackNorm::kNone,
       .gate = BackGate::kSigmoid},
      {.name = "hgrn2",
       .decay = kKey,
       .q_heads = 4,
       .k_heads = 4,
       .v_heads = 4,
       .state_heads = 4,
       .dk = 128,
       .dv = 128,
       .mean_log_decay = -0.5f,
       .norm_spans = 1},
      {.name = "hgrn2_odd",
       .decay = kKey,
       .q_heads = 3,
       .k_heads = 3,
       .v_heads = 3,
       .state_heads = 3,
       .dk = 40,
       .dv = 24,
       .mean_log_decay = -0.5f,
       .norm_spans = 1},
      {.name = "hgrn2_strong",
       .decay = kKey,
       .q_heads = 2,
       .k_heads = 2,
       .v_heads = 2,
       .state_heads = 2,
       .dk = 64,
       .dv = 64,
       .mean_log_decay = -20.0f,
       .norm_spans = 1},
      {.name = "smallest",
       .decay = kHead,
       .q_heads = 5,
       .k_heads = 5,
       .v_heads = 5,
       .state_heads = 5,
       .dk = 8,
       .dv = 8},
  };
  return cases;
}

std::vector<float> RandomSlot(const LinearCase& c, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(c.slot_floats());
  for (float& v : values) v = c.normaliser ? std::abs(normal(random)) : normal(random);
  return values;
}

LinearInputs RowsOf(const LinearCase& c, const LinearInputs& in, int64_t first, int64_t count) {
  const int64_t rows = static_cast<int64_t>(in.front.size()) / c.front_width();
  const auto cut = [&](const std::vector<float>& all) {
    const int64_t width = static_cast<int64_t>(all.size()) / rows;
    return std::vector<float>(all.begin() + first * width, all.begin() + (first + count) * width);
  };
  return {cut(in.front), cut(in.log_decay), cut(in.key_scale), cut(in.gate)};
}

class CudaLinearTest : public testing::TestWithParam<LinearCase> {};

TEST_P(CudaLinearTest, AgreesWithFloat64) {
  const LinearCase& c = GetParam();
  constexpr int32_t kLengths[] = {1, 64, 65, 17, 600, 1061};
  constexpr int32_t kSlots = 6;
  LinearKernels gpu(c, kSlots, 2048);
  const LinearReference reference(c);
  const std::vector<int32_t> tokens(2048);
  std::vector<PromptSegment> prompts;
  std::vector<std::vector<double>> slots;
  int64_t rows = 0;
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    const std::vector<float> state = RandomSlot(c, slot);
    gpu.SetSlot(slot, state);
    slots.emplace_back(state.begin(), state.end());
    prompts.push_back({slot, 0, kLengths[slot], tokens.data()});
    rows += kLengths[slot];
  }
  const LinearInputs in = RandomLinearInputs(c, rows, 3);
  std::vector<float> expected;
  for (int64_t slot = 0, row = 0; slot < kSlots; ++slot) {
    for (int32_t i = 0; i < kLengths[slot]; ++i) reference.Step(in, row++, &slots[slot], &expected);
  }
  const double prompt = RelativeRms(gpu.Run(in, {}, prompts), expected);
  const auto worst_state = [&] {
    double worst = 0.0;
    for (int32_t slot = 0; slot < kSlots; ++slot) {
      worst = std::max(worst, RelativeRms(gpu.Slot(slot), std::vector<float>(slots[slot].begin(),
                                                                             slots[slot].end())));
    }
    return worst;
  };
  const double prompt_state = worst_state();
  // Decode goes on from the device's own states.
  const std::vector<DecodeRow> decode = {{5, 0}, {0, 0}, {3, 0}, {1, 0}, {2, 0}};
  for (int32_t slot = 0; slot < kSlots; ++slot) {
    const std::vector<float> state = gpu.Slot(slot);
    slots[slot].assign(state.begin(), state.end());
  }
  double decoded = 0.0;
  for (int i = 0; i < 4; ++i) {
    const LinearInputs row = RandomLinearInputs(c, decode.size(), 100 + i);
    expected.clear();
    for (size_t r = 0; r < decode.size(); ++r)
      reference.Step(row, static_cast<int64_t>(r), &slots[decode[r].slot], &expected);
    decoded = std::max(decoded, RelativeRms(gpu.Run(row, decode, {}), expected));
  }
  const double decode_state = worst_state();
  std::printf("%-18s prompt %.2e state %.2e  decode %.2e state %.2e\n", c.name.c_str(), prompt,
              prompt_state, decoded, decode_state);
  EXPECT_LE(prompt, kTolerance);
  EXPECT_LE(prompt_state, kTolerance);
  EXPECT_LE(decoded, kTolerance);
  EXPECT_LE(decode_state, 1e-5);
}

// A row's bits are a function of its own sequence: alone, among many, cut on the grid.
TEST_P(CudaLinearTest, BitsKeepInCompany) {
  const LinearCase& c = GetParam();
  constexpr int32_t kCompany = 40, kAlone = kCompany, kCut = kCompany + 1;
  constexpr int32_t kLength = 512 + 37;
  LinearKernels gpu(c, kCompany + 2, 4096);
  const std::vector<int32_t> tokens(kLength);
  const std::vector<float> state = RandomSlot(c, 1);
  for (const int32_t slot : {7, kAlone, kCut}) gpu.SetSlot(slot, state);
  std::vector<PromptSegment> prompts;
  int64_t rows = 0, first = 0;
  for (int32_t slot = 0; slot < kCompany; ++slot) {
    if (slot == 7) first = rows;
    prompts.push_back({slot, 0, slot == 7 ? kLength : 30 + slot, tokens.data()});
    rows += prompts.back().length;
  }
  const LinearInputs in = RandomLinearInputs(c, rows, 5), own = RowsOf(c, in, first, kLength);
  const std::vector<float> all = gpu.Run(in, {}, prompts);
  const std::vector<float> mine(all.begin() + first * c.out_width(),
                                all.begin() + (first + kLength) * c.out_width());
  EXPECT_EQ(gpu.Run(own, {}, {{kAlone, 0, kLength, tokens.data()}}), mine);
  std::vector<float> cut = gpu.Run(RowsOf(c, own, 0, 512), {}, {{kCut, 0, 512, tokens.data()}});
  const std::vector<float> rest =
      gpu.Run(RowsOf(c, own, 512, 37), {}, {{kCut, 512, 37, tokens.data()}});
  cut.insert(cut.end(), rest.begin(), rest.end());
  EXPECT_EQ(cut, mine);
  EXPECT_EQ(gpu.Slot(kAlone), gpu.Slot(7));
  EXPECT_EQ(gpu.Slot(kCut), gpu.Slot(7));

  // Decode rows: few blocks and many take different kernels.
  std::vector<DecodeRow> many;
  for (int32_t i = 0; i < kCompany; ++i) many.push_back({i, 0});
  for (int i = 0; i < 3; ++i) {
    const LinearInputs row = RandomLinearInputs(c, kCompany, 50 + i);
    const std::vector<float> out = gpu.Run(row, many, {});
    EXPECT_EQ(gpu.Run(RowsOf(c, row, 7, 1), {{kAlone, 0}}, {}),
              std::vector<float>(out.begin() + 7 * c.out_width(), out.begin() + 8 * c.out_width()));
  }
  EXPECT_EQ(gpu.Slot(kAlone), gpu.Slot(7));
}

INSTANTIATE_TEST_SUITE_P(AllCores, CudaLinearTest, testing::ValuesIn(Cases()),
                         [](const auto& tested) { return tested.param.name; });

// Slots of 50 MB put slot 43 past 2^31 bytes, and slot 171 past 2^31 floats.
TEST(CudaLinearTest, FarSlots) {
  const LinearCase c = {.name = "far",
                        .decay = LinearDecay::kConst,
                        .q_heads = 2,
                        .k_heads = 2,
                        .v_heads = 2,
                        .state_heads = 2,
                        .dk = 128,
                        .dv = 128};
  constexpr int64_t kSlotFloats = int64_t{12} << 20;
  LinearKernels gpu(c, 172 * kSlotFloats / c.slot_floats(), 1024);
  gpu.args.slot_stride = kSlotFloats;
  const std::vector<int32_t> tokens(700);
  const LinearInputs in = RandomLinearInputs(c, 700, 3), row = RandomLinearInputs(c, 1, 4);
  std::vector<float> prompt_out, row_out, state;
  for (const int32_t slot : {0, 44, 87, 171}) {
    const std::vector<float> prompt = gpu.Run(in, {}, {{slot, 0, 700, tokens.data()}});
    const std::vector<float> decoded = gpu.Run(row, {{slot, 0}}, {});
    if (slot == 0) {
      prompt_out = prompt;
      row_out = decoded;
      state = gpu.Slot(0);
    }
    EXPECT_EQ(prompt, prompt_out) << slot;
    EXPECT_EQ(decoded, row_out) << slot;
    EXPECT_EQ(gpu.Slot(slot), state) << slot;
  }
}

}  // namespace
}  // namespace sluice
