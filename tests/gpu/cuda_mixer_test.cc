// The mixer alone on inputs that are equal in both backends, at the shape of the 1.3B model among
// others, and slots whose states lie past 2^31 and 2^32 floats.
#include <gtest/gtest.h>

#include <cstdio>

#include "tests/gpu/gpu_testing.h"
#include "tests/gpu/mixer_runner.h"

namespace sluice {
namespace {

GlaShape Layer(int64_t heads, int64_t kv_heads, int64_t dk, int64_t dv, int64_t layers = 1) {
  GlaShape s;
  s.vocab = 64;
  s.layers = layers;
  s.hidden = 64;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.dk = dk;
  s.dv = dv;
  s.intermediate = 64;
  return s;
}

MixerRunner MakeRunner(std::unique_ptr<Backend> backend, bool cuda, const GlaShape& shape,
                       int32_t slots, int32_t max_rows, double gate_bias) {
  const ModelSpec model = shape.Spec();
  const auto& mixer = std::get<MixerSpec>(model.layers[0].branches[0].units[0]);
  return MixerRunner(std::move(backend), cuda, model, RandomMixerValues(mixer, gate_bias, 5), slots,
                     max_rows);
}

constexpr double kMixerTolerance = 5e-3;

void CompareMixers(const GlaShape& shape, double gate_bias, const char* name) {
  MixerRunner cpu = MakeRunner(Cpu(), false, shape, 8, 2048, gate_bias);
  MixerRunner gpu = MakeRunner(CudaOrDie(), true, shape, 8, 2048, gate_bias);
  const std::vector<PromptSegment> prompts = {{0, 0, 1, nullptr},   {1, 0, 64, nullptr},
                                              {2, 0, 65, nullptr},  {3, 0, 17, nullptr},
                                              {4, 0, 600, nullptr}, {5, 0, 1024, nullptr}};
  // The step's tokens are read by no kernel of the mixer, but they are copied.
  std::vector<PromptSegment> with_tokens = prompts;
  const std::vector<int32_t> tokens(1024);
  int64_t rows = 0;
  for (PromptSegment& p : with_tokens) {
    p.tokens = tokens.data();
    rows += p.length;
  }
  const std::vector<float> in = RandomInputs(rows, shape.mixer_in_dim(), 3);
  const double prompt =
      RelativeRms(gpu.Run(in, {}, with_tokens, 0), cpu.Run(in, {}, with_tokens, 0));
  double decode = 0.0, state = 0.0;
  for (int i = 0; i < 8; ++i) {
    const std::vector<DecodeRow> slots = {{5, 0}, {0, 0}, {3, 0}, {1, 0}, {2, 0}};
    const std::vector<float> row = RandomInputs(slots.size(), shape.mixer_in_dim(), 100 + i);
    decode = std::max(decode, RelativeRms(gpu.Run(row, slots, {}, 0), cpu.Run(row, slots, {}, 0)));
  }
  for (int32_t slot = 0; slot < 6; ++slot)
    state = std::max(state, RelativeRms(gpu.State(slot), cpu.State(slot)));
  std::printf("%-18s prompt %.2e  decode %.2e  state %.2e\n", name, prompt, decode, state);
  EXPECT_LE(prompt, kMixerTolerance);
  EXPECT_LE(decode, kMixerTolerance);
  EXPECT_LE(state, kMixerTolerance);
}

TEST(CudaMixerTest, TheModelsShape) { CompareMixers(Layer(4, 4, 256, 512), 4.0, "4x256x512"); }
TEST(CudaMixerTest, SmallHeads) { CompareMixers(Layer(5, 5, 8, 8), 4.0, "5x8x8"); }
TEST(CudaMixerTest, UnevenHeads) { CompareMixers(Layer(3, 3, 104, 200), 2.0, "3x104x200"); }
TEST(CudaMixerTest, Groups) { CompareMixers(Layer(8, 2, 128, 128), 3.0, "8/2x128x128"); }
TEST(CudaMixerTest, WideValues) { CompareMixers(Layer(1, 1, 64, 1024), 4.0, "1x64x1024"); }
TEST(CudaMixerTest, WideKeys) { CompareMixers(Layer(2, 2, 584, 72), 4.0, "2x584x72"); }
TEST(CudaMixerTest, FastDecay) { CompareMixers(Layer(2, 2, 128, 128), -30.0, "fast decay"); }
TEST(CudaMixerTest, FasterThanCanBeSplit) {
  CompareMixers(Layer(2, 2, 64, 64), -300.0, "extreme decay");
}

// The decode kernel has variants for few and for many rows.
TEST(CudaMixerTest, RowsKeepTheirBitsAmongMany) {
  const GlaShape shape = Layer(4, 4, 256, 512);
  MixerRunner gpu = MakeRunner(CudaOrDie(), true, shape, 130, 1024, 4.0);
  const std::vector<int32_t> tokens(100);
  const std::vector<float> prompt = RandomInputs(100, shape.mixer_in_dim(), 3);
  gpu.Run(prompt, {}, {{128, 0, 100, tokens.data()}}, 0);
  gpu.Run(prompt, {}, {{77, 0, 100, tokens.data()}}, 0);
  std::vector<DecodeRow> rows;
  for (int32_t slot = 0; slot < 128; ++slot) rows.push_back({slot, 0});
  for (int i = 0; i < 4; ++i) {
    const std::vector<float> in = RandomInputs(128, shape.mixer_in_dim(), 50 + i);
    const int64_t cols = shape.mixer_in_dim(), out_cols = shape.out_dim();
    const std::vector<float> one(in.begin() + 77 * cols, in.begin() + 78 * cols);
    const std::vector<float> many = gpu.Run(in, rows, {}, 0);
    EXPECT_EQ(gpu.Run(one, {{128, 0}}, {}, 0),
              std::vector<float>(many.begin() + 77 * out_cols, many.begin() + 78 * out_cols));
  }
  EXPECT_EQ(gpu.State(77), gpu.State(128));
}

// Query heads that share a state, in more blocks than a GPU holds at once: none may read the state
// after another has replaced it.
TEST(CudaMixerTest, GroupsOfManyPrompts) {
  constexpr int32_t kPrompts = 300;
  constexpr int64_t kTokens = 65;
  const GlaShape shape = Layer(8, 1, 64, 64);
  MixerRunner gpu = MakeRunner(CudaOrDie(), true, shape, kPrompts + 1, kPrompts * kTokens, 4.0);
  const std::vector<int32_t> tokens(kTokens);
  std::vector<PromptSegment> prompts;
  for (int32_t slot = 0; slot < kPrompts; ++slot)
    prompts.push_back({slot, 0, kTokens, tokens.data()});
  const int64_t cols = shape.mixer_in_dim() * kTokens, out_cols = shape.out_dim() * kTokens;
  const std::vector<float> in = RandomInputs(kPrompts * kTokens, shape.mixer_in_dim(), 3);
  const std::vector<float> all = gpu.Run(in, {}, prompts, 0);
  for (const int32_t slot : {0, 1, 149, 299}) {
    gpu.backend()->ZeroState(kPrompts);
    const std::vector<float> one(in.begin() + slot * cols, in.begin() + (slot + 1) * cols);
    EXPECT_EQ(
        gpu.Run(one, {}, {{kPrompts, 0, kTokens, tokens.data()}}, 0),
        std::vector<float>(all.begin() + slot * out_cols, all.begin() + (slot + 1) * out_cols))
        << slot;
    EXPECT_EQ(gpu.State(kPrompts), gpu.State(slot)) << slot;
  }
}

// States of 50 MB put slot 43 past 2^31 bytes, slot 86 past 2^32 bytes, and slot 171 past 2^31
// floats.
TEST(CudaMixerTest, FarSlots) {
  const GlaShape shape = Layer(4, 4, 256, 512, 24);
  MixerRunner gpu = MakeRunner(CudaOrDie(), true, shape, 200, 1024, 4.0);
  const std::vector<int32_t> tokens(700);
  const std::vector<float> in = RandomInputs(700, shape.mixer_in_dim(), 3);
  const std::vector<float> row = RandomInputs(1, shape.mixer_in_dim(), 4);
  std::vector<float> prompt_out, row_out, state;
  for (const int32_t slot : {0, 44, 87, 171, 199}) {
    std::vector<float> prompt = gpu.Run(in, {}, {{slot, 0, 700, tokens.data()}}, 23);
    std::vector<float> decoded = gpu.Run(row, {{slot, 0}}, {}, 23);
    std::vector<float> now = gpu.State(slot);
    if (slot == 0) {
      prompt_out = prompt;
      row_out = decoded;
      state = now;
    }
    EXPECT_EQ(prompt, prompt_out) << slot;
    EXPECT_EQ(decoded, row_out) << slot;
    EXPECT_EQ(now, state) << slot;
  }
  for (const int32_t slot : {1, 43, 86, 170, 198}) {
    EXPECT_EQ(gpu.State(slot), std::vector<float>(state.size(), 0.0f)) << "neighbour " << slot;
  }
}

}  // namespace
}  // namespace sluice
