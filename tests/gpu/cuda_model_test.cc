// Whole steps of small models against the CPU backend, and a row's bits in every company.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdio>
#include <random>
#include <string>
#include <vector>

#include "tests/gpu/gpu_testing.h"

namespace sluice {
namespace {

struct Variant {
  std::string name;
  GlaShape shape;
  TestModel::Options options;
};

GlaShape Shape(int64_t hidden, int64_t heads, int64_t kv_heads, int64_t dk, int64_t dv) {
  GlaShape s;
  s.vocab = 257;
  s.layers = 2;
  s.hidden = hidden;
  s.heads = heads;
  s.kv_heads = kv_heads;
  s.dk = dk;
  s.dv = dv;
  s.intermediate = 200;
  return s;
}

std::vector<Variant> Variants() {
  std::vector<Variant> all;
  const auto add = [&](std::string name, GlaShape shape, TestModel::Options options = {}) {
    options.seed = all.size() + 1;
    all.push_back({std::move(name), shape, options});
    return &all.back();
  };
  add("plain", Shape(128, 2, 2, 32, 64));
  add("large_head", Shape(256, 1, 1, 256, 512));
  add("odd_heads", Shape(96, 3, 3, 24, 40));
  add("gqa", Shape(128, 4, 2, 16, 32));
  Variant* v = add("no_output_gate", Shape(128, 2, 2, 64, 64));
  v->shape.output_gate = false;
  v->shape.feature_map = FeatureMap::kRelu;
  v = add("conv", Shape(128, 2, 1, 64, 96));
  v->shape.conv_size = 4;
  v = add("clamped", Shape(128, 2, 2, 72, 136));
  v->shape.clamp_log_gate = true;
  v->shape.log_gate_min = -0.05f;
  v->options.gate_bias_mean = 0.0;
  // If a token's output is its own v times q k alone, the norm undoes the factor, but for its sign:
  // bf16 rounding of q and k upstream of the mixer then flips heads whose q k is near zero. The
  // mixer's own test covers that range.
  v = add("strong_decay", Shape(128, 2, 2, 64, 64));
  v->options.gate_bias_mean = -15.0;
  v = add("very_strong_decay", Shape(128, 2, 2, 64, 64));
  v->options.gate_bias_mean = -400.0;
  v = add("wide_keys", Shape(128, 1, 1, 320, 64));
  v = add("fp32_checkpoint", Shape(64, 2, 2, 40, 24));
  v->options.dtype = DType::kF32;
  v = add("conv_gelu", Shape(100, 2, 2, 48, 80));
  v->shape.conv_size = 3;
  v->shape.feature_map = FeatureMap::kGeluTanh;
  return all;
}

std::vector<float> Flat(const std::vector<std::vector<float>>& rows) {
  std::vector<float> all;
  for (const std::vector<float>& row : rows) all.insert(all.end(), row.begin(), row.end());
  return all;
}

constexpr double kLogitsTolerance = 1e-2;
constexpr double kStateTolerance = 2e-2;

class VariantTest : public testing::TestWithParam<Variant> {};

TEST_P(VariantTest, AgreesWithTheCpu) {
  const Variant& variant = GetParam();
  const TestModel model(variant.shape, variant.options);
  Runner cpu(Cpu(), model, 8, 2048), gpu(CudaOrDie(), model, 8, 2048);
  const int64_t vocab = variant.shape.vocab;
  double worst_row = 0.0, worst_state = 0.0;
  std::vector<float> all_expected, all_actual;
  const auto compare = [&](const std::vector<Runner::Decode>& decode,
                           const std::vector<Runner::Prompt>& prompts) {
    const auto expected = cpu.Step(decode, prompts), actual = gpu.Step(decode, prompts);
    for (size_t i = 0; i < expected.size(); ++i) {
      worst_row = std::max(worst_row, RelativeRms(actual[i], expected[i]));
      all_expected.insert(all_expected.end(), expected[i].begin(), expected[i].end());
      all_actual.insert(all_actual.end(), actual[i].begin(), actual[i].end());
    }
  };
  // Several prompts at once, of odd lengths; one of them over several spans.
  compare({}, {{0, 0, RandomTokens(1, vocab, 1)},
               {1, 0, RandomTokens(63, vocab, 2)},
               {2, 0, RandomTokens(64, vocab, 3)},
               {3, 0, RandomTokens(1, vocab, 4)},
               {4, 0, RandomTokens(137, vocab, 5)},
               {5, 0, RandomTokens(1100, vocab, 6)}});
  // Decode rows beside prompts, a short one between the others. (Seed 9 would begin with a token
  // whose q k is near zero in a head of fp32_checkpoint: factors of 1 +- 2^-8 at the weights move
  // the state behind it by 0.18 in float64 too.)
  compare({{1, 5}, {5, 6}, {3, 7}}, {{6, 0, RandomTokens(70, vocab, 7)},
                                     {7, 0, RandomTokens(16, vocab, 10)},
                                     {2, 0, RandomTokens(513, vocab, 8)}});
  for (int i = 0; i < 20; ++i)
    compare({{0, i}, {5, i + 1}, {2, i + 2}, {6, i + 3}, {4, i + 4}}, {});
  for (int32_t slot = 0; slot < 8; ++slot) {
    worst_state = std::max(worst_state, RelativeRms(gpu.State(slot), cpu.State(slot)));
  }
  const double logits = RelativeRms(all_actual, all_expected);
  std::printf("%-18s logits %.2e (worst row %.2e)  state %.2e\n", variant.name.c_str(), logits,
              worst_row, worst_state);
  EXPECT_LE(logits, kLogitsTolerance);
  EXPECT_LE(worst_state, kStateTolerance);
}

TEST_P(VariantTest, BitsDoNotDependOnCompanyOrCuts) {
  const Variant& variant = GetParam();
  const TestModel model(variant.shape, variant.options);
  const int64_t vocab = variant.shape.vocab;
  Runner alone(CudaOrDie(), model, 64, 2048), beside(CudaOrDie(), model, 64, 2048);
  // Its last part is as short as a short prompt, but not the beginning of one.
  const std::vector<int32_t> prompt = RandomTokens(1060, vocab, 11);
  const auto part = [&](int64_t begin, int64_t end) {
    return std::vector<int32_t>(prompt.begin() + begin, prompt.begin() + end);
  };
  const auto whole = alone.Step({}, {{0, 0, prompt}});
  // The same prompt cut at multiples of the grid, beside other prompts and decode rows.
  beside.Step({}, {{7, 0, RandomTokens(33, vocab, 12)}, {9, 0, part(0, 512)}});
  beside.Step({{7, 3}}, {{9, 512, part(512, 1024)}, {8, 0, RandomTokens(100, vocab, 13)}});
  auto cut = beside.Step({{7, 3}, {8, 4}}, {{9, 1024, part(1024, 1060)}});
  EXPECT_EQ(cut[2], whole[0]);
  EXPECT_EQ(beside.State(9), alone.State(0));
  // Then decoded in batches of every size.
  std::vector<Runner::Prompt> others;
  for (int32_t slot = 10; slot < 63; ++slot)
    others.push_back({slot, 0, RandomTokens(5, vocab, slot)});
  beside.Step({}, others);
  for (const int32_t size : {1, 2, 5, 8, 9, 16, 17, 31, 33, 40, 54}) {
    std::vector<Runner::Decode> decode;
    for (int32_t i = 0; i < size - 1; ++i) decode.push_back({10 + i, i});
    decode.insert(decode.begin() + size / 2, {9, size});
    const auto expected = alone.Step({{0, size}}, {});
    const auto actual = beside.Step(
        decode, size % 2 == 0 ? std::vector<Runner::Prompt>{}
                              : std::vector<Runner::Prompt>{{63, 0, RandomTokens(7, vocab, 1)}});
    EXPECT_EQ(actual[size / 2], expected[0]) << "in a batch of " << size;
  }
  EXPECT_EQ(beside.State(9), alone.State(0));
}

// Prompts on both sides of the length at which products take other orders: the bits of each alone
// are those beside any others, in any order, with and without decode rows.
TEST_P(VariantTest, BitsOfShortPromptsDoNotDependOnCompany) {
  const Variant& variant = GetParam();
  const TestModel model(variant.shape, variant.options);
  const int64_t vocab = variant.shape.vocab;
  constexpr int32_t kSlots = 80, kMaxRows = 4096, kOthers = 20;
  Runner alone(CudaOrDie(), model, 1, kMaxRows), beside(CudaOrDie(), model, kSlots, kMaxRows);
  struct Expected {
    std::vector<float> logits, state;
  };
  std::vector<Runner::Prompt> probes;
  std::vector<Expected> expected;
  for (const int64_t length : {1, 5, 16, 63, 64, 65, 100, 512, 600}) {
    const auto slot = static_cast<int32_t>(probes.size());
    probes.push_back({slot, 0, RandomTokens(length, vocab, 30 + length)});
    alone.Zero(0);
    const auto logits = alone.Step({}, {{0, 0, probes.back().tokens}});
    expected.push_back({logits[0], alone.State(0)});
  }
  std::mt19937_64 random(31);
  for (const int32_t decoding : {0, 1, 7, 40}) {
    for (const int32_t others : {0, 3, kOthers}) {
      std::vector<Runner::Prompt> prompts = probes;
      for (int32_t i = 0; i < others; ++i) {
        const int64_t length = 1 + static_cast<int64_t>(random() % (i % 4 == 0 ? 200 : 64));
        prompts.push_back(
            {static_cast<int32_t>(prompts.size()), 0, RandomTokens(length, vocab, random())});
      }
      std::shuffle(prompts.begin(), prompts.end(), random);
      std::vector<Runner::Decode> decode;
      for (int32_t i = 0; i < decoding; ++i) decode.push_back({kSlots - 1 - i, i});
      for (const Runner::Prompt& prompt : prompts) beside.Zero(prompt.slot);
      const auto logits = beside.Step(decode, prompts);
      for (size_t i = 0; i < prompts.size(); ++i) {
        const auto slot = static_cast<size_t>(prompts[i].slot);
        if (slot >= probes.size()) continue;
        EXPECT_EQ(logits[decode.size() + i], expected[slot].logits)
            << prompts[i].tokens.size() << " tokens beside " << decoding << " decode rows and "
            << others << " more prompts";
        EXPECT_EQ(beside.State(prompts[i].slot), expected[slot].state);
      }
    }
  }
}

INSTANTIATE_TEST_SUITE_P(Cuda, VariantTest, testing::ValuesIn(Variants()),
                         [](const auto& tested) { return tested.param.name; });

TEST(CudaBackendTest, GraphsChangeNoBits) {
  const TestModel model(Shape(128, 2, 2, 64, 64), {});
  Runner with(CudaOrDie(true, true), model, 8, 512), without(CudaOrDie(true, false), model, 8, 512);
  for (Runner* r : {&with, &without})
    r->Step({}, {{0, 0, RandomTokens(40, 257, 1)}, {1, 0, RandomTokens(9, 257, 2)}});
  for (int i = 0; i < 5; ++i) {
    EXPECT_EQ(with.Step({{0, i}, {1, i}}, {}), without.Step({{0, i}, {1, i}}, {}));
    EXPECT_EQ(with.Step({{0, i}}, {}), without.Step({{0, i}}, {}));
  }
}

// Whatever a step without rows takes through the model to have everything made, the slots keep
// their states.
TEST(CudaBackendTest, PreparingTouchesNoSlot) {
  for (const bool graphs : {true, false}) {
    const TestModel model(Shape(128, 2, 1, 64, 96), {});
    Runner gpu(CudaOrDie(true, graphs), model, 3, 600);
    gpu.Step({}, {{0, 0, RandomTokens(40, 257, 1)},
                  {1, 0, RandomTokens(100, 257, 2)},
                  {2, 0, RandomTokens(9, 257, 3)}});
    std::vector<std::vector<float>> before;
    for (int32_t slot = 0; slot < 3; ++slot) before.push_back(gpu.State(slot));
    EXPECT_TRUE(gpu.Prepare().ok());
    for (int32_t slot = 0; slot < 3; ++slot) EXPECT_EQ(gpu.State(slot), before[slot]);
  }
}

TEST(CudaBackendTest, LibraryProductsAgreeToo) {
  const TestModel model(Shape(128, 2, 2, 64, 64), {});
  Runner cpu(Cpu(), model, 64, 512), gpu(CudaOrDie(false, true), model, 64, 512);
  std::vector<Runner::Decode> decode;
  std::vector<Runner::Prompt> prompts;
  for (int32_t i = 0; i < 50; ++i) {
    prompts.push_back({i, 0, RandomTokens(3 + i % 5, 257, i)});
    decode.push_back({i, i});
  }
  cpu.Step({}, prompts);
  gpu.Step({}, prompts);
  const auto expected = cpu.Step(decode, {}), actual = gpu.Step(decode, {});
  for (size_t i = 0; i < expected.size(); ++i)
    EXPECT_LE(RelativeRms(actual[i], expected[i]), kLogitsTolerance);
  // Few enough rows for the products of decode rows, short prompts among them.
  const std::vector<Runner::Decode> few = {{1, 2}, {3, 4}};
  const std::vector<Runner::Prompt> beside = {{50, 0, RandomTokens(7, 257, 60)},
                                              {51, 0, RandomTokens(20, 257, 61)}};
  EXPECT_LE(RelativeRms(Flat(gpu.Step(few, beside)), Flat(cpu.Step(few, beside))),
            kLogitsTolerance);
}

TEST(CudaBackendTest, StatesMove) {
  const TestModel model(Shape(128, 2, 1, 64, 96), {});
  Runner gpu(CudaOrDie(), model, 8, 512);
  gpu.Step({}, {{0, 0, RandomTokens(40, 257, 1)}});
  const std::vector<float> state = gpu.State(0);
  gpu.backend()->CopyState(0, 5);
  EXPECT_EQ(gpu.State(5), state);
  gpu.Zero(0);
  EXPECT_EQ(gpu.State(0), std::vector<float>(state.size(), 0.0f));
  const Ticket ticket = gpu.backend()->WriteState(3, state.data(), 0);
  EXPECT_TRUE(gpu.backend()->Await(ticket).ok());
  EXPECT_EQ(gpu.State(3), state);
  EXPECT_EQ(gpu.Step({{3, 1}}, {}), gpu.Step({{5, 1}}, {}));
}

// Copies to and from the host go on beside steps, in any host memory, many at once, and each sees
// the slot as it was when it was enqueued.
TEST(CudaBackendTest, StatesMoveBesideSteps) {
  GlaShape shape = Shape(128, 2, 2, 256, 512);
  shape.layers = 8;
  const TestModel model(shape, {});
  Runner gpu(CudaOrDie(), model, 8, 512);
  Backend* backend = gpu.backend();
  EXPECT_TRUE(gpu.Prepare().ok());
  gpu.Step({}, {{0, 0, RandomTokens(40, 257, 1)}, {1, 0, RandomTokens(40, 257, 2)}});
  constexpr int kCopies = 9;
  const size_t elements = MakeStateTable(shape.Spec()).bytes() / sizeof(float);
  std::vector<std::vector<float>> read(kCopies, std::vector<float>(elements));
  std::vector<Ticket> tickets;
  for (int i = 0; i < kCopies; ++i) {
    tickets.push_back(backend->ReadState(0, read[i].data(), 0));
    gpu.Step({{0, i}, {1, i}}, {});
  }
  for (const Ticket ticket : tickets) EXPECT_TRUE(backend->Await(ticket).ok());
  // The same again, a step at a time.
  gpu.Step({}, {{2, 0, RandomTokens(40, 257, 1)}, {3, 0, RandomTokens(40, 257, 2)}});
  for (int i = 0; i < kCopies; ++i) {
    EXPECT_EQ(gpu.State(2), read[i]) << i;
    gpu.Step({{2, i}, {3, i}}, {});
  }
  // A step that uses the slot waits for the write; others do not see it.
  for (int i = 0; i < kCopies; ++i) {
    const Ticket ticket = backend->WriteState(4, read[i].data(), 0);
    const auto beside = gpu.Step({{5, 1}}, {});
    gpu.Zero(5);
    EXPECT_EQ(gpu.Step({{5, 1}}, {}), beside);
    gpu.Zero(5);
    backend->CopyState(4, 6);
    const auto after = gpu.Step({{4, i}}, {});
    EXPECT_TRUE(backend->Await(ticket).ok());
    EXPECT_TRUE(backend->Done(ticket));
    EXPECT_EQ(gpu.State(6), read[i]);
    EXPECT_EQ(gpu.Step({{6, i}}, {}), after);
  }
}

TEST(CudaBackendTest, RefusesShapesItCannotServe) {
  GlaShape shape = Shape(128, 2, 2, 20, 64);
  EXPECT_EQ(CudaOrDie()->AllocateStates(shape.Spec(), 2, 1, 64).code(),
            absl::StatusCode::kInvalidArgument);
  shape = Shape(128, 2, 2, 64, 64);
  EXPECT_EQ(CudaOrDie()->AllocateStates(shape.Spec(), 1 << 30, 1, 64).code(),
            absl::StatusCode::kResourceExhausted);
}

// Long enough for errors to gather: the state after 4,096 tokens, and logits on the way.
TEST(CudaBackendTest, LongPromptStaysClose) {
  GlaShape shape = Shape(256, 2, 2, 64, 128);
  shape.layers = 3;
  const TestModel model(shape, {});
  Runner cpu(Cpu(), model, 2, 4096), gpu(CudaOrDie(), model, 2, 4096);
  const std::vector<Runner::Prompt> prompt = {{0, 0, RandomTokens(4096, 257, 1)}};
  const double logits = RelativeRms(gpu.Step({}, prompt)[0], cpu.Step({}, prompt)[0]);
  const double state = RelativeRms(gpu.State(0), cpu.State(0));
  std::printf("%-18s logits %.2e  state %.2e\n", "4096 tokens", logits, state);
  EXPECT_LE(logits, kLogitsTolerance);
  EXPECT_LE(state, kStateTolerance);
}

}  // namespace
}  // namespace sluice
