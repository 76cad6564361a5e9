#include "kernels/cpu/sampler.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/philox.h"

namespace sluice {
namespace {

constexpr float kInfinity = std::numeric_limits<float>::infinity();

// Orders token ids: best first by `logits`, ties to the lower id.
struct Better {
  const float* logits;
  bool operator()(int32_t a, int32_t b) const {
    return logits[a] > logits[b] || (logits[a] == logits[b] && a < b);
  }
};

// KeepMass sorts only the tokens of the bucket in which the mass is reached. Keys are differences
// of scaled logits: a token 128 below the best has no weight in fp32.
constexpr int64_t kBuckets = 8192;
constexpr float kBucketsPerUnit = 64.0f;

int64_t BucketOf(float key) {
  return static_cast<int64_t>(std::min(key * kBucketsPerUnit, static_cast<float>(kBuckets - 1)));
}

bool HasPenalties(const LogitRow& row) {
  const SamplingConfig& c = *row.sampling;
  return row.counts >= 0 && (c.repetition_penalty != 1.0f || c.presence_penalty != 0.0f ||
                             c.frequency_penalty != 0.0f);
}

}  // namespace

absl::Status Sampler::Allocate(int64_t vocab, int64_t sampled) {
  vocab_ = vocab;
  sampled_ = sampled;
  const auto allocate = [](int64_t count, HostBuffer* buffer,
                           int64_t element_bytes = sizeof(float)) -> absl::Status {
    absl::StatusOr<HostBuffer> made = HostBuffer::Allocate(count, element_bytes, "sampler scratch");
    if (made.ok()) *buffer = std::move(*made);
    return made.status();
  };
  absl::Status status = allocate(PaddedCols(vocab), &adjusted_);
  status.Update(allocate(PaddedCols(vocab), &weights_));
  status.Update(allocate(vocab / kSumBlock + 1, &block_sums_));
  status.Update(allocate(PaddedCols(vocab) + kLineFloats, &candidate_ids_));
  status.Update(allocate(PaddedCols(vocab), &border_ids_));
  status.Update(allocate(PaddedCols(vocab), &scratch_));
  status.Update(allocate(kBuckets, &bucket_mass_, sizeof(double)));
  candidates_ = static_cast<int32_t*>(candidate_ids_.data());
  return status;
}

int32_t Sampler::Sample(const LogitRow& row, const float* logits, const LogitSummary& model_summary,
                        const TokenCounts& counts) {
  const SamplingConfig& config = *row.sampling;
  LogitSummary summary = model_summary;
  if (HasPenalties(row) || row.num_bias > 0 || row.num_banned > 0 || sampled_ < vocab_) {
    float* adjusted = adjusted_.floats();
    std::memcpy(adjusted, logits, PaddedCols(vocab_) * sizeof(float));
    if (HasPenalties(row)) counts.ApplyPenalties(row.counts, config, adjusted);
    for (int32_t i = 0; i < row.num_bias; ++i) adjusted[row.bias[i].token] += row.bias[i].bias;
    for (int32_t i = 0; i < row.num_banned; ++i) adjusted[row.banned[i]] = -kInfinity;
    std::fill(adjusted + sampled_, adjusted + vocab_, -kInfinity);
    logits = adjusted;
    summary = Summarize(logits, vocab_);
  }
  // The maximum is infinite only when every token is banned or a penalty overflows; callers rule
  // that out.
  if (config.temperature == 0.0f || !std::isfinite(summary.max)) return summary.argmax;

  SoftmaxWeights(logits, vocab_, summary.max, config.temperature, weights_.floats(),
                 block_sums_.floats());
  if (Filter(logits, summary.max, BlockTotal(), config)) ForgetOthers();
  return Draw(UniformAt(row.seed, row.sequence, row.position));
}

bool Sampler::Filter(const float* logits, float max, double total, const SamplingConfig& config) {
  const float* weights = weights_.floats();
  bool filtered = false;
  if (config.top_k > 0 && config.top_k < vocab_) {
    KeepTopK(logits, config.top_k);
    filtered = true;
    total = CandidateTotal();
  }
  if (config.top_p < 1.0f) {
    if (!filtered) {
      // Tokens below this weight have less than half of the mass that top-p leaves out, all
      // together.
      const double floor = 0.5 * (1.0 - config.top_p) * total / static_cast<double>(vocab_);
      KeepWeightsAbove(static_cast<float>(floor));
      filtered = true;
    }
    const auto below_best = [&](int32_t id) { return (max - logits[id]) / config.temperature; };
    KeepMass(config.top_p * total, below_best, Better{logits});
  }
  if (config.min_p > 0.0f) {
    // Weights are relative to the most likely token's, which is 1.
    if (!filtered) {
      KeepWeightsAbove(std::nextafter(config.min_p, 0.0f));
      filtered = true;
    } else {
      num_candidates_ = std::remove_if(candidates_, candidates_ + num_candidates_,
                                       [&](int32_t id) { return weights[id] < config.min_p; }) -
                        candidates_;
    }
  }
  if (config.typical_p < 1.0f) {
    if (!filtered) KeepWeightsAbove(0.0f);
    filtered = true;
    KeepTypical(logits, max, config);
  }
  return filtered;
}

int64_t Sampler::TopTokens(const float* logits, int64_t count, int32_t* ids) {
  if (count <= 0) return 0;
  KeepTopK(logits, std::min(count, vocab_));
  std::copy_n(candidates_, num_candidates_, ids);
  return num_candidates_;
}

void Sampler::KeepTopK(const float* logits, int64_t k) {
  const Better better{logits};
  // Candidates gather until there are so many that it pays to drop all but the best k, and with
  // them every later token that is not above the worst of those: it could only tie, with a higher
  // id.
  const int64_t capacity = std::min(std::max(4 * k, k + 512), PaddedCols(vocab_) + kLineFloats);
  float threshold = -kInfinity;
  num_candidates_ = 0;
  for (int64_t position = 0; position < vocab_;) {
    num_candidates_ += CollectGreater(logits, vocab_, threshold, &position,
                                      candidates_ + num_candidates_, capacity - num_candidates_);
    if (num_candidates_ > k) {
      std::nth_element(candidates_, candidates_ + k - 1, candidates_ + num_candidates_, better);
      num_candidates_ = k;
      threshold = logits[candidates_[k - 1]];
    }
  }
  std::sort(candidates_, candidates_ + num_candidates_, better);
}

void Sampler::KeepWeightsAbove(float threshold) {
  int64_t position = 0;
  num_candidates_ = CollectGreater(weights_.floats(), vocab_, threshold, &position, candidates_,
                                   PaddedCols(vocab_) + kLineFloats);
}

template <class Key, class Before>
void Sampler::KeepMass(double mass, const Key& key, const Before& before) {
  const float* weights = weights_.floats();
  double* bucket_mass = static_cast<double*>(bucket_mass_.data());
  std::fill_n(bucket_mass, kBuckets, 0.0);
  for (int64_t i = 0; i < num_candidates_; ++i) {
    bucket_mass[BucketOf(key(candidates_[i]))] += static_cast<double>(weights[candidates_[i]]);
  }
  int64_t border = 0;
  double sum = 0.0;
  const auto reached = [mass](double so_far) { return so_far >= mass && so_far > 0.0; };
  while (border < kBuckets && !reached(sum + bucket_mass[border])) sum += bucket_mass[border++];
  // The tokens before the bucket stay; those in it go on until the mass is reached.
  int32_t* in_border = static_cast<int32_t*>(border_ids_.data());
  int64_t kept = 0, num_in_border = 0;
  for (int64_t i = 0; i < num_candidates_; ++i) {
    const int64_t bucket = BucketOf(key(candidates_[i]));
    if (bucket == border) in_border[num_in_border++] = candidates_[i];
    if (bucket < border) candidates_[kept++] = candidates_[i];
  }
  std::sort(in_border, in_border + num_in_border, before);
  for (int64_t i = 0; i < num_in_border; ++i) {
    candidates_[kept++] = in_border[i];
    sum += static_cast<double>(weights[in_border[i]]);
    if (reached(sum)) break;
  }
  num_candidates_ = kept;
}

// Locally typical sampling (Meister et al. 2022): tokens whose surprise -log p is closest to its
// expectation.
void Sampler::KeepTypical(const float* logits, float max, const SamplingConfig& config) {
  const float* weights = weights_.floats();
  float* distance = scratch_.floats();
  const double total = CandidateTotal();
  const double log_total = std::log(total);
  const auto surprise = [&](int32_t id) {
    return log_total - static_cast<double>(logits[id] - max) / config.temperature;
  };
  double entropy = 0.0;
  for (int64_t i = 0; i < num_candidates_; ++i) {
    const int32_t id = candidates_[i];
    if (weights[id] > 0.0f) entropy += weights[id] / total * surprise(id);
  }
  for (int64_t i = 0; i < num_candidates_; ++i) {
    const int32_t id = candidates_[i];
    distance[id] = static_cast<float>(std::abs(surprise(id) - entropy));
  }
  KeepMass(
      config.typical_p * total, [distance](int32_t id) { return distance[id]; },
      [distance](int32_t a, int32_t b) {
        return distance[a] < distance[b] || (distance[a] == distance[b] && a < b);
      });
}

double Sampler::CandidateTotal() const {
  double total = 0.0;
  for (int64_t i = 0; i < num_candidates_; ++i) {
    total += static_cast<double>(weights_.floats()[candidates_[i]]);
  }
  return total;
}

void Sampler::ForgetOthers() {
  float* kept = scratch_.floats();
  std::fill_n(kept, PaddedCols(vocab_), 0.0f);
  for (int64_t i = 0; i < num_candidates_; ++i)
    kept[candidates_[i]] = weights_.floats()[candidates_[i]];
  std::swap(scratch_, weights_);
  SumBlocks(weights_.floats(), vocab_, block_sums_.floats());
}

double Sampler::BlockTotal() const {
  double total = 0.0;
  for (int64_t block = 0; block * kSumBlock < vocab_; ++block) {
    total += static_cast<double>(block_sums_.floats()[block]);
  }
  return total;
}

int32_t Sampler::Draw(double u) const {
  const float* weights = weights_.floats();
  const float* block_sums = block_sums_.floats();
  const double target = u * BlockTotal();
  int64_t block = 0;
  double sum = 0.0;
  while (sum + static_cast<double>(block_sums[block]) <= target) {
    sum += static_cast<double>(block_sums[block++]);
  }
  // The sum of a block's weights one by one may round to less than the block's: then it is its last
  // token.
  int32_t token = 0;
  for (int64_t i = block * kSumBlock; i < std::min((block + 1) * kSumBlock, vocab_); ++i) {
    if (weights[i] == 0.0f) continue;
    token = static_cast<int32_t>(i);
    sum += static_cast<double>(weights[i]);
    if (sum > target) break;
  }
  return token;
}

}  // namespace sluice
