// The sampler against a plain implementation that sorts everything.
#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <ostream>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "kernels/philox.h"

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

struct History {
  std::vector<int32_t> prompt, generated;
};

struct Weighted {
  int32_t id;
  double logit;
  double weight;
  double surprise = 0.0;  // its distance from the expectation
};

double Total(const std::vector<Weighted>& tokens) {
  double total = 0.0;
  for (const Weighted& token : tokens) total += token.weight;
  return total;
}

// The shortest run whose weights reach `mass`.
void Cut(std::vector<Weighted>* tokens, double mass) {
  double sum = 0.0;
  for (size_t i = 0; i < tokens->size(); ++i) {
    sum += (*tokens)[i].weight;
    if (sum >= mass) return tokens->resize(i + 1);
  }
}

// Tokens that may be drawn, with their weights, by ascending id.
std::vector<Weighted> Distribution(std::vector<float> logits, const SamplingConfig& c,
                                   const History& history, const LogitRow& row) {
  std::vector<int> generated(logits.size()), seen(logits.size());
  for (int32_t id : history.prompt) seen[id] = 1;
  for (int32_t id : history.generated) ++generated[id], seen[id] = 1;
  for (size_t i = 0; i < logits.size(); ++i) {
    float& logit = logits[i];
    if (seen[i]) logit = logit > 0 ? logit / c.repetition_penalty : logit * c.repetition_penalty;
    if (generated[i]) logit = logit - c.frequency_penalty * generated[i] - c.presence_penalty;
  }
  for (int32_t i = 0; i < row.num_bias; ++i) logits[row.bias[i].token] += row.bias[i].bias;
  for (int32_t i = 0; i < row.num_banned; ++i) logits[row.banned[i]] = -kInfinity;
  std::vector<Weighted> tokens;
  const float max = *std::max_element(logits.begin(), logits.end());
  for (size_t i = 0; i < logits.size(); ++i) {
    const double scaled = (double{logits[i]} - max) / (c.temperature == 0 ? 1.0f : c.temperature);
    if (logits[i] != -kInfinity)
      tokens.push_back({static_cast<int32_t>(i), logits[i], std::exp(scaled), 0.0});
  }
  std::stable_sort(tokens.begin(), tokens.end(),
                   [](auto& a, auto& b) { return a.logit > b.logit; });
  if (c.temperature == 0) tokens.resize(1);
  if (c.top_k > 0 && tokens.size() > static_cast<size_t>(c.top_k)) tokens.resize(c.top_k);
  if (c.top_p < 1) Cut(&tokens, c.top_p * Total(tokens));
  std::erase_if(tokens, [&](const Weighted& t) { return t.weight < c.min_p; });
  if (c.typical_p < 1) {
    const double total = Total(tokens);
    double entropy = 0.0;
    for (const Weighted& t : tokens) entropy -= t.weight / total * std::log(t.weight / total);
    std::sort(tokens.begin(), tokens.end(), [](auto& a, auto& b) { return a.id < b.id; });
    for (Weighted& t : tokens) t.surprise = std::abs(-std::log(t.weight / total) - entropy);
    std::stable_sort(tokens.begin(), tokens.end(),
                     [](auto& a, auto& b) { return a.surprise < b.surprise; });
    Cut(&tokens, c.typical_p * total);
  }
  std::sort(tokens.begin(), tokens.end(), [](auto& a, auto& b) { return a.id < b.id; });
  return tokens;
}

class SamplerFixture {
 public:
  // The last `padding` logits are of no tokens.
  explicit SamplerFixture(std::vector<float> logits, int64_t padding = 0)
      : logits_(std::move(logits)) {
    vocab_ = static_cast<int64_t>(logits_.size());
    padded_ = logits_;
    padded_.resize(PaddedCols(vocab_), -kInfinity);
    std::fill(logits_.end() - padding, logits_.end(), -kInfinity);
    EXPECT_TRUE(sampler_.Allocate(vocab_, vocab_ - padding).ok());
    EXPECT_TRUE(counts_.Allocate(1, vocab_).ok());
  }

  void SetHistory(const History& history) {
    history_ = history;
    counts_.Reset(0, history.prompt);
    for (int32_t id : history.generated) counts_.AddGenerated(0, id);
  }

  int32_t Sample(const LogitRow& row) {
    return sampler_.Sample(row, padded_.data(), Summarize(padded_.data(), vocab_), counts_);
  }

  // Samples at many positions; each must be the token whose share of the unit interval holds the
  // random number.
  void ExpectAsReference(LogitRow row, int draws) {
    const std::vector<Weighted> tokens = Distribution(logits_, *row.sampling, history_, row);
    const double total = Total(tokens);
    int undecided = 0;
    for (int i = 0; i < draws; ++i) {
      row.position = static_cast<uint64_t>(i);
      const double target = UniformAt(row.seed, row.sequence, row.position) * total;
      size_t pick = 0;
      double sum = tokens[0].weight;
      while (sum <= target && pick + 1 < tokens.size()) sum += tokens[++pick].weight;
      // Within rounding of a border either side is right.
      const double to_border =
          std::min(std::abs(sum - target), std::abs(sum - tokens[pick].weight - target));
      if (tokens.size() > 1 && to_border < 1e-6 * total) {
        ++undecided;
        continue;
      }
      ASSERT_EQ(Sample(row), tokens[pick].id) << "position " << i;
    }
    EXPECT_LE(undecided, 1 + draws / 10);
  }

  const std::vector<float>& logits() const { return logits_; }
  Sampler& sampler() { return sampler_; }

 private:
  std::vector<float> logits_, padded_;
  int64_t vocab_ = 0;
  Sampler sampler_;
  TokenCounts counts_;
  History history_;
};

std::vector<float> RandomLogits(int64_t vocab, float scale, uint64_t seed) {
  std::mt19937_64 random(seed);
  std::normal_distribution<float> normal(0.0f, scale);
  std::vector<float> logits(vocab);
  for (float& logit : logits) logit = normal(random);
  return logits;
}

struct Case {
  std::string name;
  SamplingConfig config;
};

void PrintTo(const Case& c, std::ostream* os) { *os << c.name; }

class SamplerTest : public testing::TestWithParam<Case> {};

TEST_P(SamplerTest, DrawsWhatThePlainImplementationDraws) {
  for (int64_t vocab : {2, 97, 256, 1000, 5000}) {
    for (float scale : {0.5f, 3.0f}) {
      SCOPED_TRACE(vocab);
      SamplerFixture fixture(RandomLogits(vocab, scale, vocab));
      const int32_t last = static_cast<int32_t>(vocab) - 1;
      fixture.SetHistory({.prompt = {0, last, last}, .generated = {0, 1, 1}});
      const TokenBias bias[] = {{1, 2.5f}, {last, -1.0f}};
      LogitRow row = {.sampling = &GetParam().config, .seed = 99, .sequence = 3, .counts = 0};
      fixture.ExpectAsReference(row, 150);
      row.bias = bias;
      row.num_bias = 2;
      fixture.ExpectAsReference(row, 50);
      const int32_t banned[] = {fixture.Sample(row)};
      row.banned = banned;
      row.num_banned = 1;
      fixture.ExpectAsReference(row, 50);
    }
  }
}

INSTANTIATE_TEST_SUITE_P(, SamplerTest,
                         testing::ValuesIn(std::vector<Case>{
                             {"defaults", {}},
                             {"greedy", {.temperature = 0.0f}},
                             {"greedy_penalized",
                              {.temperature = 0.0f,
                               .repetition_penalty = 1.5f,
                               .presence_penalty = 1.0f,
                               .frequency_penalty = 0.5f}},
                             {"cold", {.temperature = 0.3f}},
                             {"nearly_greedy", {.temperature = 1e-6f}},
                             {"hot", {.temperature = 10.0f}},
                             {"top_1", {.top_k = 1}},
                             {"top_40", {.top_k = 40}},
                             {"top_3000", {.top_k = 3000}},
                             {"top_k_of_all", {.top_k = 1 << 30}},
                             {"top_p", {.top_p = 0.9f}},
                             {"top_p_small", {.top_p = 0.01f}},
                             {"top_p_zero", {.top_p = 0.0f}},
                             {"top_p_large", {.top_p = 0.999f}},
                             {"min_p", {.min_p = 0.05f}},
                             {"min_p_one", {.min_p = 1.0f}},
                             {"typical", {.typical_p = 0.5f}},
                             {"typical_zero", {.typical_p = 0.0f}},
                             {"typical_large", {.typical_p = 0.95f}},
                             {"repetition", {.repetition_penalty = 1.3f}},
                             {"repetition_reward", {.repetition_penalty = 0.7f}},
                             {"presence_and_frequency",
                              {.presence_penalty = 0.8f, .frequency_penalty = -0.4f}},
                             {"top_k_top_p", {.top_k = 50, .top_p = 0.8f}},
                             {"everything",
                              {.temperature = 0.8f,
                               .top_k = 200,
                               .top_p = 0.95f,
                               .min_p = 0.01f,
                               .typical_p = 0.9f,
                               .repetition_penalty = 1.1f,
                               .presence_penalty = 0.3f,
                               .frequency_penalty = 0.1f}},
                         }),
                         [](const auto& param_info) { return param_info.param.name; });

TEST(SamplerTiesTest, GoToTheLowerId) {
  std::vector<float> logits(300, 1.0f);
  logits[0] = 0.0f;
  SamplerFixture fixture(logits);
  const SamplingConfig greedy = {.temperature = 0.0f}, top_5 = {.top_k = 5},
                       top_p = {.top_p = 0.01f};
  EXPECT_EQ(fixture.Sample({.sampling = &greedy}), 1);
  std::vector<int> drawn(300);
  for (uint64_t i = 0; i < 500; ++i) {
    ++drawn[fixture.Sample({.sampling = &top_5, .position = i})];
    EXPECT_LE(fixture.Sample({.sampling = &top_p, .position = i}), 3);
  }
  EXPECT_EQ(std::accumulate(drawn.begin() + 1, drawn.begin() + 6, 0), 500);
  std::vector<float> padded = logits;
  padded.resize(PaddedCols(300), -kInfinity);
  int32_t best[20];
  ASSERT_EQ(fixture.sampler().TopTokens(padded.data(), 20, best), 20);
  for (int32_t i = 0; i < 20; ++i) EXPECT_EQ(best[i], i + 1);
}

TEST(SamplerTopTokensTest, MatchesAFullSort) {
  for (int64_t vocab : {3, 20, 700, 30000}) {
    std::vector<float> logits = RandomLogits(vocab, 2.0f, vocab);
    for (size_t i = 0; i + 1 < logits.size(); i += 7) logits[i + 1] = logits[i];  // ties
    SamplerFixture fixture(logits);
    std::vector<int32_t> order(vocab);
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(),
                     [&](int32_t a, int32_t b) { return logits[a] > logits[b]; });
    std::vector<float> padded = logits;
    padded.resize(PaddedCols(vocab), -kInfinity);
    int32_t best[20];
    const int64_t count = fixture.sampler().TopTokens(padded.data(), 20, best);
    ASSERT_EQ(count, std::min<int64_t>(20, vocab));
    EXPECT_EQ(std::vector<int32_t>(best, best + count),
              std::vector<int32_t>(order.begin(), order.begin() + count));
    for (int64_t i = 0; i < std::min<int64_t>(vocab, 100); ++i) {
      EXPECT_EQ(CountBefore(padded.data(), vocab, order[i]), i);
    }
  }
}

TEST(SamplerPaddingTest, RowsThatPadTheVocabularyAreNeverDrawn) {
  for (const int64_t vocab : {9, 300, 5000}) {
    const int64_t padding = vocab / 3;
    std::vector<float> logits = RandomLogits(vocab, 2.0f, 5);
    std::fill(logits.end() - padding, logits.end(), 30.0f);  // what the model likes best
    SamplerFixture fixture(logits, padding);
    std::vector<float> model = logits;
    model.resize(PaddedCols(vocab), -kInfinity);
    int32_t best = 0;
    EXPECT_EQ(fixture.sampler().TopTokens(model.data(), 1, &best), 1);
    EXPECT_EQ(best, vocab - padding) << "log-probabilities are the model's";
    for (const SamplingConfig& config :
         {SamplingConfig{.temperature = 0.0f}, SamplingConfig{},
          SamplingConfig{.top_k = 3, .top_p = 0.9f}, SamplingConfig{.min_p = 0.1f},
          SamplingConfig{.typical_p = 0.8f}}) {
      fixture.ExpectAsReference({.sampling = &config, .seed = 4}, 100);
      const TokenBias bias = {static_cast<int32_t>(vocab - 1), 100.0f};
      for (uint64_t position = 0; position < 50; ++position) {
        EXPECT_LT(fixture.Sample({.sampling = &config,
                                  .seed = 4,
                                  .position = position,
                                  .bias = &bias,
                                  .num_bias = 1}),
                  vocab - padding);
      }
    }
  }
}

// Frequencies over fixed seeds: the expectation of the statistic is its degrees of freedom.
TEST(SamplerDistributionTest, FollowsTheSoftmax) {
  const std::vector<float> logits = {0.0f, 1.0f, -1.0f, 2.0f, 0.5f, 0.0f, -2.0f, 1.5f};
  SamplerFixture fixture(logits);
  const SamplingConfig config = {.temperature = 1.3f};
  constexpr int kDraws = 200000;
  std::vector<int> counts(logits.size());
  for (int i = 0; i < kDraws; ++i) {
    ++counts[fixture.Sample({.sampling = &config,
                             .seed = static_cast<uint64_t>(i / 1000),
                             .sequence = static_cast<uint32_t>(i / 100 % 10),
                             .position = static_cast<uint64_t>(i % 100)})];
  }
  double total = 0.0, chi_square = 0.0;
  for (float logit : logits) total += std::exp(logit / 1.3);
  for (size_t i = 0; i < logits.size(); ++i) {
    const double expected = kDraws * std::exp(logits[i] / 1.3) / total;
    chi_square += (counts[i] - expected) * (counts[i] - expected) / expected;
  }
  EXPECT_LT(chi_square,
            24.3);  // 7 degrees of freedom: one in a thousand exceeds it; the draws are fixed
}

TEST(LogitScanTest, FindsNaNAndTheFirstMaximum) {
  std::vector<float> logits(64, -kInfinity);
  logits[17] = 3.0f;
  logits[40] = 3.0f;
  EXPECT_EQ(Summarize(logits.data(), 50).argmax, 17);
  EXPECT_EQ(Summarize(logits.data(), 50).max, 3.0f);
  EXPECT_FALSE(Summarize(logits.data(), 50).has_nan);
  logits[49] = std::numeric_limits<float>::quiet_NaN();
  EXPECT_TRUE(Summarize(logits.data(), 50).has_nan);
}

TEST(LogitScanTest, SumsExponentials) {
  const std::vector<float> logits = RandomLogits(4096, 3.0f, 1);
  const float max = *std::max_element(logits.begin(), logits.end());
  double expected = 0.0;
  for (float logit : logits) expected += std::exp(double{logit} - max);
  EXPECT_NEAR(SumExp(logits.data(), 4096, max), expected, 1e-6 * expected);
}

}  // namespace
}  // namespace sluice
