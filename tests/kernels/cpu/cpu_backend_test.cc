// The CPU backend against the recurrence in fp64, over every feature of a GLA layer, and the
// promises of kernels/backend.h about bits.
#include "kernels/cpu/cpu_backend.h"

#include <cmath>
#include <cstring>
#include <limits>
#include <ostream>
#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/kernels/reference_model.h"

namespace sluice {
namespace {

GlaShape SmallShape() {
  GlaShape s;
  s.vocab = 97;
  s.layers = 2;
  s.hidden = 64;
  s.heads = 2;
  s.kv_heads = 2;
  s.dk = 16;
  s.dv = 32;
  s.intermediate = 96;
  return s;
}

struct Variant {
  std::string name;
  GlaShape shape;
  TestModel::Options options;
};

void PrintTo(const Variant& variant, std::ostream* os) { *os << variant.name; }

std::vector<Variant> Variants() {
  std::vector<Variant> variants;
  const auto add = [&](const char* name) -> Variant& {
    variants.push_back({name, SmallShape(), {}});
    variants.back().options.seed = variants.size();
    return variants.back();
  };
  add("base");
  add("float32").options.dtype = DType::kF32;
  add("float16").options.dtype = DType::kF16;
  add("tied").options.tied = true;
  add("no_head_norm_weight").options.head_norm_weight = false;
  add("strong_gates").options.gate_bias_mean = -60.0;
  add("mixed_gates").options.gate_bias_mean = -8.0;
  Variant& clamp = add("clamp");
  clamp.shape.clamp_log_gate = true;
  clamp.shape.log_gate_min = -0.05f;
  add("no_output_gate").shape.output_gate = false;
  Variant& gqa = add("gqa_conv");
  gqa.shape.heads = 6;
  gqa.shape.kv_heads = 2;
  gqa.shape.conv_size = 4;
  Variant& odd = add("odd_dims_conv");
  odd.shape.hidden = 60;
  odd.shape.heads = 5;
  odd.shape.kv_heads = 5;
  odd.shape.dk = 6;
  odd.shape.dv = 12;
  odd.shape.intermediate = 107;
  odd.shape.vocab = 211;
  odd.shape.conv_size = 3;
  Variant& odd_gqa = add("odd_dims_gqa");
  odd_gqa.shape.heads = 4;
  odd_gqa.shape.kv_heads = 1;
  odd_gqa.shape.dk = 7;
  odd_gqa.shape.dv = 19;
  odd_gqa.shape.gate_rank = 5;
  Variant& wide = add("wide_head");
  wide.shape.heads = 1;
  wide.shape.kv_heads = 1;
  wide.shape.dk = 64;
  wide.shape.dv = 136;
  Variant& one_tap = add("conv_of_one_tap");
  one_tap.shape.conv_size = 1;
  Variant& wide_conv = add("conv_longer_than_a_chunk_piece");
  wide_conv.shape.conv_size = 40;
  for (FeatureMap map : {FeatureMap::kRelu, FeatureMap::kSigmoid, FeatureMap::kLogSigmoid,
                         FeatureMap::kSilu, FeatureMap::kSquaredRelu, FeatureMap::kGeluTanh}) {
    Variant& v = add("feature_map_");
    v.name += std::to_string(static_cast<int>(map));
    v.shape.feature_map = map;
  }
  return variants;
}

// Logits of every token.
std::vector<double> Reference(const TestModel& model, const std::vector<int32_t>& tokens,
                              std::vector<double>* state) {
  ReferenceSequence sequence(&model);
  std::vector<double> logits;
  for (int32_t token : tokens) {
    const std::vector<double> row = sequence.Step(token);
    logits.insert(logits.end(), row.begin(), row.end());
  }
  *state = sequence.State();
  return logits;
}

class CpuBackendVariantTest : public testing::TestWithParam<Variant> {};

// A tenth of what the product promises for logits.
constexpr double kTolerance = 1e-5;

TEST_P(CpuBackendVariantTest, MatchesTheRecurrenceInFp64) {
  const TestModel model(GetParam().shape, GetParam().options);
  for (int64_t length : {1, 2, 15, 16, 17, 63, 64, 65, 128, 200}) {
    SCOPED_TRACE(length);
    const std::vector<int32_t> tokens = RandomTokens(length, model.shape().vocab, length);
    std::vector<double> state;
    const std::vector<double> logits = Reference(model, tokens, &state);
    TestDevice device(model, 2, 3, 256);
    EXPECT_LT(RelativeRms(device.Prefill(0, tokens), logits), kTolerance) << "chunks";
    EXPECT_LT(RelativeRms(device.ReadState(0), state), kTolerance) << "chunks";
    EXPECT_LT(RelativeRms(device.Decode(1, tokens), logits), kTolerance) << "recurrence";
    EXPECT_LT(RelativeRms(device.ReadState(1), state), kTolerance) << "recurrence";
  }
}

TEST_P(CpuBackendVariantTest, ChunksAndRecurrenceContinueEachOther) {
  const TestModel model(GetParam().shape, GetParam().options);
  const std::vector<int32_t> tokens = RandomTokens(150, model.shape().vocab, 5);
  std::vector<double> state;
  const std::vector<double> logits = Reference(model, tokens, &state);
  TestDevice device(model, 2, 1, 256);
  std::vector<float> got;
  const auto append = [&](const std::vector<float>& more) {
    got.insert(got.end(), more.begin(), more.end());
  };
  append(device.Prefill(0, {tokens.begin(), tokens.begin() + 37}));
  append(device.Decode(0, {tokens.begin() + 37, tokens.begin() + 45}));
  append(device.Prefill(0, {tokens.begin() + 45, tokens.begin() + 120}));
  append(device.Prefill(0, {tokens.begin() + 120, tokens.begin() + 122}));
  append(device.Decode(0, {tokens.begin() + 122, tokens.end()}));
  EXPECT_LT(RelativeRms(got, logits), kTolerance);
  EXPECT_LT(RelativeRms(device.ReadState(0), state), kTolerance);
}

TEST_P(CpuBackendVariantTest, ACutOnTheGridChangesNoBit) {
  const TestModel model(GetParam().shape, GetParam().options);
  const std::vector<int32_t> tokens = RandomTokens(300, model.shape().vocab, 9);
  TestDevice device(model, 2, 4, 320);
  const std::vector<float> whole = device.Prefill(0, tokens);
  const std::vector<float> state = device.ReadState(0);
  const std::vector<std::vector<int64_t>> all_cuts = {{64}, {128, 256}, {64, 128, 192, 256}};
  for (size_t i = 0; i < all_cuts.size(); ++i) {
    const int32_t slot = static_cast<int32_t>(i) + 1;
    EXPECT_EQ(device.Prefill(slot, tokens, all_cuts[i]), whole);
    EXPECT_EQ(device.ReadState(slot), state);
  }
}

// Runs eight sequences together, prompts of many lengths beside decode rows, and each alone.
TEST_P(CpuBackendVariantTest, NeighboursAndThreadsChangeNoBit) {
  const TestModel model(GetParam().shape, GetParam().options);
  const int64_t vocab = model.shape().vocab;
  const std::vector<int64_t> lengths = {1, 5, 16, 64, 70, 129, 3, 40};
  const int32_t count = static_cast<int32_t>(lengths.size());
  TestDevice alone(model, 1, count, 512);
  TestDevice together(model, 2, count, 512);
  std::vector<std::vector<int32_t>> prompts;
  for (int32_t slot = 0; slot < count; ++slot)
    prompts.push_back(RandomTokens(lengths[slot], vocab, slot));
  // The first half has its prompt behind it and decodes while the second half's prompts run.
  for (int32_t slot = 0; slot < count / 2; ++slot) {
    alone.Prefill(slot, prompts[slot]);
    together.Prefill(slot, prompts[slot]);
  }
  std::vector<float> expected(count * vocab), got(count * vocab);
  const auto logit_row = [&](int32_t row, int32_t slot, std::vector<float>* to) {
    LogitRow r;
    r.row = row;
    r.slot = slot;
    r.target = 0;
    r.logits_out = to->data() + slot * vocab;
    return r;
  };
  std::vector<DecodeRow> decode;
  std::vector<PromptSegment> segments;
  std::vector<LogitRow> rows;
  int32_t row = 0;
  for (int32_t slot = 0; slot < count; ++slot) {
    const int32_t length = static_cast<int32_t>(lengths[slot]);
    if (slot < count / 2) {
      decode.push_back({slot, slot + 7});
      row += 1;
      alone.Step({decode.back()}, {}, {logit_row(0, slot, &expected)});
    } else {
      segments.push_back({slot, 0, length, prompts[slot].data()});
      row += length;
      alone.Step({}, {segments.back()}, {logit_row(length - 1, slot, &expected)});
    }
    rows.push_back(logit_row(row - 1, slot, &got));
  }
  together.Step(decode, segments, rows);
  EXPECT_EQ(got, expected);
  for (int32_t slot = 0; slot < count; ++slot)
    EXPECT_EQ(together.ReadState(slot), alone.ReadState(slot));
}

TEST_P(CpuBackendVariantTest, StatesSurviveARoundTripAndCopies) {
  const TestModel model(GetParam().shape, GetParam().options);
  TestDevice device(model, 1, 4, 128);
  device.Prefill(0, RandomTokens(70, model.shape().vocab, 1));
  const std::vector<float> state = device.ReadState(0);
  device.backend->WriteState(1, state.data(), 0);
  device.backend->CopyState(0, 2);
  EXPECT_EQ(device.ReadState(1), state);
  EXPECT_EQ(device.ReadState(2), state);
  const std::vector<int32_t> more = RandomTokens(3, model.shape().vocab, 2);
  const std::vector<float> expected = device.Decode(0, more);
  EXPECT_EQ(device.Decode(1, more), expected);
  EXPECT_EQ(device.Decode(2, more), expected);
  EXPECT_EQ(device.ReadState(1), device.ReadState(0));
  device.backend->ZeroState(0);
  EXPECT_EQ(device.ReadState(0), std::vector<float>(state.size(), 0.0f));
  device.backend->CopyState(3, 1);  // a slot that was never used is zeros
  EXPECT_EQ(device.ReadState(1), std::vector<float>(state.size(), 0.0f));
}

INSTANTIATE_TEST_SUITE_P(, CpuBackendVariantTest, testing::ValuesIn(Variants()),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(CpuBackendTest, ANaNStaysInItsRow) {
  const TestModel model(SmallShape(), {});
  TestDevice clean(model, 2, 4, 128), device(model, 2, 4, 128);
  std::vector<float> state(MakeStateTable(model.shape().Spec()).bytes() / sizeof(float),
                           std::numeric_limits<float>::quiet_NaN());
  device.backend->WriteState(1, state.data(), 0);
  device.backend->WriteState(2, state.data(), 0);
  const std::vector<int32_t> tokens = RandomTokens(20, model.shape().vocab, 3);
  const SamplingConfig greedy = {.temperature = 0.0f};
  std::vector<std::vector<float>> logits(8, std::vector<float>(model.shape().vocab));
  std::vector<LogitRow> rows(4);
  for (int32_t i = 0; i < 4; ++i) {
    rows[i] = {
        .row = i < 2 ? i : 2 + (i - 1) * 20 - 1, .slot = i, .alternatives = 3, .sampling = &greedy};
  }
  const std::vector<DecodeRow> decode = {{0, 1}, {1, 1}};
  const std::vector<PromptSegment> prompts = {{2, 0, 20, tokens.data()}, {3, 0, 20, tokens.data()}};
  rows[2].row = 21;
  rows[3].row = 41;
  const auto run = [&](TestDevice* d, size_t base) {
    for (size_t i = 0; i < 4; ++i) rows[i].logits_out = logits[base + i].data();
    return d->Step(decode, prompts, rows);
  };
  const std::vector<LogitResult> expected = run(&clean, 0), got = run(&device, 4);
  for (int i : {0, 3}) {
    EXPECT_TRUE(got[i].finite);
    EXPECT_EQ(got[i].token, expected[i].token);
    EXPECT_EQ(logits[4 + i], logits[i]);
  }
  for (int i : {1, 2}) EXPECT_FALSE(got[i].finite);
}

TEST(CpuBackendTest, TheTokenLastSampledIsTheNextInput) {
  const TestModel model(SmallShape(), {});
  TestDevice chained(model, 2, 1, 8), given(model, 2, 1, 8);
  const SamplingConfig config;
  int32_t token = 5;
  for (uint64_t position = 0; position < 20; ++position) {
    const LogitRow row = {.sampling = &config, .seed = 11, .position = position};
    const int32_t chained_input = position == 0 ? token : kLastSampled;
    const int32_t a = chained.Step({{0, chained_input}}, {}, {row})[0].token;
    const int32_t b = given.Step({{0, token}}, {}, {row})[0].token;
    ASSERT_EQ(a, b);
    token = a;
  }
}

TEST(CpuBackendTest, AStepWithoutRowsChangesNothing) {
  const TestModel model(SmallShape(), {});
  for (const int threads : {1, 2}) {
    TestDevice device(model, threads, 2, 8);
    const SamplingConfig config;
    device.Step({{0, 5}}, {}, {{.sampling = &config}});
    const std::vector<float> before = device.ReadState(0);
    device.Step({}, {}, {});
    EXPECT_EQ(device.ReadState(0), before);
  }
}

TEST(CpuBackendTest, OneRowCanBeSampledSeveralTimes) {
  const TestModel model(SmallShape(), {});
  TestDevice device(model, 2, 60, 128);
  const std::vector<int32_t> tokens = RandomTokens(70, model.shape().vocab, 3);
  const SamplingConfig config;
  std::vector<LogitRow> rows;
  for (int32_t i = 0; i < 60; ++i) {
    rows.push_back({.row = 69,
                    .slot = i,
                    .sampling = &config,
                    .seed = 3,
                    .sequence = static_cast<uint32_t>(i)});
  }
  const std::vector<LogitResult> all = device.Step({}, {{0, 0, 70, tokens.data()}}, rows);
  for (int32_t i = 0; i < 60; ++i) {
    device.backend->ZeroState(0);
    EXPECT_EQ(device.Step({}, {{0, 0, 70, tokens.data()}}, {rows[i]})[0].token, all[i].token);
  }
}

TEST(CpuBackendTest, NamesItsNumerics) {
  const TestModel model(SmallShape(), {});
  const TestDevice of_one(model, 1, 1, 8), of_two(model, 2, 1, 8);
  const Backend* one = of_one.backend.get();
  const Backend* two = of_two.backend.get();
  EXPECT_EQ(one->info().numerics_id, two->info().numerics_id);
  EXPECT_THAT(one->info().numerics_id, testing::StartsWith("cpu-"));
  EXPECT_THAT(one->info().device, testing::EndsWith("1 thread)"));
  EXPECT_THAT(two->info().device, testing::EndsWith("2 threads)"));
  EXPECT_EQ(one->info().prompt_grid, 64);
}

TEST(CpuBackendTest, SaysWhatIsMissingWhenMemoryIsShort) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  GlaShape shape = SmallShape();
  shape.dk = shape.dv = int64_t{1} << 30;
  const absl::Status status = backend->AllocateStates(shape.Spec(), 1000, 1, 16);
  EXPECT_EQ(status.code(), absl::StatusCode::kResourceExhausted);
  EXPECT_THAT(std::string(status.message()), testing::HasSubstr("bytes"));
  EXPECT_EQ(backend->AllocateActivation(int64_t{1} << 40, int64_t{1} << 40).status().code(),
            absl::StatusCode::kResourceExhausted);
  EXPECT_GT(backend->SlotBytes(shape.Spec()), int64_t{1} << 60);
}

TEST(CpuBackendTest, RefusesMatricesThatDoNotStack) {
  const std::unique_ptr<Backend> backend = MakeCpuBackend({.threads = 1});
  const std::vector<float> data(64);
  const MatrixView a = {data.data(), DType::kF32, 4, 4}, b = {data.data(), DType::kF32, 4, 8};
  EXPECT_EQ(backend->LoadLinear({a, b}).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->LoadGateUp(a, b).status().code(), absl::StatusCode::kInvalidArgument);
  EXPECT_EQ(backend->LoadLinear({}).status().code(), absl::StatusCode::kInvalidArgument);
}

}  // namespace
}  // namespace sluice
