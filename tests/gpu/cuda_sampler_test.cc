// The sampler against the CPU's on logits that are exactly equal: rows of the embedding are unit
// vectors and the final norm makes them 8, so that logits are 8 times a column of the last matrix.
#include <gtest/gtest.h>

#include <cmath>
#include <cstdio>
#include <random>

#include "tests/gpu/gpu_testing.h"

namespace sluice {
namespace {

constexpr int64_t kHidden = 64;

class SamplerRunner {
 public:
  SamplerRunner(std::unique_ptr<Backend> backend, int64_t vocab, int64_t sampled, int32_t max_rows)
      : vocab_(vocab), backend_(std::move(backend)) {
    std::vector<float> unit(vocab * kHidden, 0.0f);
    for (int64_t i = 0; i < vocab; ++i) unit[i * kHidden + i % kHidden] = 1.0f;
    std::mt19937_64 random(9);
    const TestMatrix head = RandomMatrix(vocab, kHidden, 0.4, DType::kBF16, &random);
    const std::vector<float> ones(kHidden, 1.0f);
    const MatrixView unit_view = {unit.data(), DType::kF32, vocab, kHidden},
                     head_view = head.view();
    table_ = backend_->LoadLinear({&unit_view, 1}).value();
    head_ = backend_->LoadLinear({&head_view, 1}).value();
    norm_ = backend_->LoadVector({ones.data(), DType::kF32, 1, kHidden}).value();
    GlaShape shape;
    shape.vocab = vocab;
    shape.layers = 1;
    shape.hidden = kHidden;
    shape.heads = shape.kv_heads = 1;
    shape.dk = shape.dv = 8;
    shape.intermediate = 64;
    ModelSpec spec = shape.Spec();
    spec.first_unsampled = sampled;
    EXPECT_TRUE(backend_->AllocateStates(spec, max_rows, 4, max_rows).ok());
    x_ = backend_->AllocateActivation(max_rows, kHidden).value();
  }

  // A decode row with token i for each logit row i.
  std::vector<LogitResult> Run(std::vector<LogitRow> rows, const std::vector<int32_t>& tokens) {
    std::vector<DecodeRow> decode;
    for (size_t i = 0; i < rows.size(); ++i) {
      decode.push_back({static_cast<int32_t>(i), tokens[i]});
      rows[i].row = rows[i].slot = static_cast<int32_t>(i);
    }
    std::vector<LogitResult> results(rows.size());
    StepRows step;
    step.decode = decode.data();
    step.num_decode = static_cast<int32_t>(decode.size());
    step.logits = rows.data();
    step.num_logits = static_cast<int32_t>(rows.size());
    step.results = results.data();
    backend_->BeginStep(&step);
    backend_->Embed({table_, x_});
    backend_->Logits({x_, {{.eps = 0.0f}, norm_, {}}, head_});
    const absl::Status status = backend_->Await(backend_->EndStep());
    EXPECT_TRUE(status.ok()) << status;
    return results;
  }
  Backend* backend() { return backend_.get(); }

 private:
  int64_t vocab_;
  std::unique_ptr<Backend> backend_;
  Linear table_, head_;
  Vector norm_;
  Activation x_;
};

// Tokens from `drawn` on are never drawn; 0: all may be.
void CompareSamplers(int64_t vocab, int64_t drawn = 0) {
  constexpr int kRows = 48;
  SamplerRunner cpu(Cpu(), vocab, drawn, kRows), gpu(CudaOrDie(), vocab, drawn, kRows);
  const std::vector<int32_t> prompt = RandomTokens(300, vocab, 77);
  for (SamplerRunner* r : {&cpu, &gpu}) {
    r->backend()->ResetCounts(0, prompt);
    r->backend()->ResetCounts(1, {});
  }
  std::mt19937_64 random(3);
  int sampled = 0, different = 0;
  for (int round = 0; round < 40; ++round) {
    std::vector<SamplingConfig> configs(kRows);
    std::vector<std::vector<TokenBias>> biases(kRows);
    std::vector<std::vector<int32_t>> banned(kRows);
    std::vector<LogitRow> rows(kRows);
    for (int i = 0; i < kRows; ++i) {
      const auto maybe = [&](double yes, double no) { return random() % 2 == 0 ? yes : no; };
      SamplingConfig& c = configs[i];
      c.temperature = static_cast<float>(random() % 5 == 0 ? 0.0 : maybe(1.0, 0.7));
      c.top_k = static_cast<int32_t>(maybe(1 + random() % 50, 0));
      c.top_p = static_cast<float>(maybe(0.9, 1.0));
      c.min_p = static_cast<float>(maybe(0.05, 0.0));
      c.typical_p = static_cast<float>(random() % 3 == 0 ? 0.8 : 1.0);
      if (i < 2) {
        rows[i].counts = i;
        c.repetition_penalty = 1.3f;
        c.presence_penalty = 0.5f;
        c.frequency_penalty = 0.25f;
      }
      if (random() % 4 == 0) {
        biases[i] = {{static_cast<int32_t>(random() % vocab), 5.0f},
                     {static_cast<int32_t>(random() % vocab), -3.0f}};
      }
      if (random() % 4 == 0) banned[i] = RandomTokens(5, vocab, random());
      rows[i].sampling = &c;
      rows[i].seed = random();
      rows[i].sequence = static_cast<uint32_t>(random() % 4);
      rows[i].position = random() % 1000;
      rows[i].bias = biases[i].data();
      rows[i].num_bias = static_cast<int32_t>(biases[i].size());
      rows[i].banned = banned[i].data();
      rows[i].num_banned = static_cast<int32_t>(banned[i].size());
      rows[i].alternatives = static_cast<int32_t>(random() % 22) - 1;
      if (random() % 8 == 0) rows[i].target = static_cast<int32_t>(random() % vocab);
    }
    const std::vector<int32_t> tokens = RandomTokens(kRows, vocab, random());
    const auto expected = cpu.Run(rows, tokens), actual = gpu.Run(rows, tokens);
    for (int i = 0; i < kRows; ++i) {
      ++sampled;
      if (actual[i].token != expected[i].token) {
        ++different;
        std::printf("row %d: %d, the CPU %d (T %g k %d p %g min %g typical %g)\n", i,
                    actual[i].token, expected[i].token, configs[i].temperature, configs[i].top_k,
                    configs[i].top_p, configs[i].min_p, configs[i].typical_p);
        continue;
      }
      EXPECT_TRUE(actual[i].finite);
      if (drawn > 0 && rows[i].target == kNoTarget) {
        EXPECT_LT(actual[i].token, drawn);
      }
      EXPECT_EQ(actual[i].rank, expected[i].rank);
      EXPECT_NEAR(actual[i].logprob, expected[i].logprob, 1e-4);
      ASSERT_EQ(actual[i].num_alternatives, expected[i].num_alternatives);
      for (int j = 0; j < actual[i].num_alternatives; ++j) {
        EXPECT_EQ(actual[i].alternatives[j].token, expected[i].alternatives[j].token);
        EXPECT_NEAR(actual[i].alternatives[j].logprob, expected[i].alternatives[j].logprob, 1e-4);
      }
    }
  }
  std::printf("vocab %d: %d of %d tokens differ\n", static_cast<int>(vocab), different, sampled);
  // Weights differ in the last bit, so a draw at the very edge of a token may fall beside it.
  EXPECT_LE(different, 2);
}

TEST(CudaSamplerTest, SmallVocabulary) { CompareSamplers(300); }
TEST(CudaSamplerTest, PaddedVocabulary) {
  CompareSamplers(304, 200);
  CompareSamplers(50288, 50277);
}
TEST(CudaSamplerTest, ModelsVocabulary) { CompareSamplers(32000); }
TEST(CudaSamplerTest, LargeVocabulary) { CompareSamplers(70001); }

TEST(CudaSamplerTest, LastSampledFeedsTheNextStep) {
  SamplerRunner gpu(CudaOrDie(), 300, 0, 4), cpu(Cpu(), 300, 0, 4);
  const SamplingConfig greedy = {.temperature = 0.0f};
  std::vector<LogitRow> rows(3);
  for (LogitRow& row : rows) row.sampling = &greedy;
  std::vector<int32_t> tokens = {5, 6, 7};
  for (int i = 0; i < 4; ++i) {
    const auto expected = cpu.Run(rows, tokens), actual = gpu.Run(rows, tokens);
    for (int j = 0; j < 3; ++j) EXPECT_EQ(actual[j].token, expected[j].token);
    tokens = {kLastSampled, kLastSampled, kLastSampled};
  }
}

}  // namespace
}  // namespace sluice
