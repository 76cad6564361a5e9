// A block a row. Filters keep a set of tokens that a threshold describes: in an order such as "best
// first, ties to the lower id", each token has a 64-bit rank that is unique, and the shortest run
// of a wanted mass is all ranks from some threshold on. The threshold is found bit by bit, each
// pass summing masses. Masses are weights in fixed point, 2^-40: integer sums have one value in any
// order, so a row's token never depends on how its sums were cut.
#include "kernels/cuda/device.cuh"
#include "kernels/cuda/sampler.h"
#include "kernels/philox.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 1024;
constexpr int kWarps = kThreads / 32;
constexpr int kSharedLogits = 50 * 1024;  // of a row that fits shared memory
constexpr float kOne = 1099511627776.0f;  // 2^40: a weight of 1

struct Shared {
  uint64_t sums[kWarps][3];
  double doubles[kWarps];
  float max[kWarps];
  int argmax[kWarps];
  int nan[kWarps];
  int picked, num_best;
  int best[kMaxAlternatives];
};

struct Summary {
  float max;
  int argmax;
  bool nan;
};

__device__ Summary Summarize(const float* x, int n, Shared* shared) {
  Summary s = {-INFINITY, 0x7fffffff, false};
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float v = x[i];
    s.nan = s.nan || isnan(v);
    if (v > s.max) {
      s.max = v;
      s.argmax = i;
    }
  }
  const auto join = [&](float max, int argmax) {
    if (max > s.max || (max == s.max && argmax < s.argmax)) {
      s.max = max;
      s.argmax = argmax;
    }
  };
  for (int d = 16; d > 0; d /= 2) {
    const float max = __shfl_xor_sync(0xffffffffu, s.max, d);
    const int argmax = __shfl_xor_sync(0xffffffffu, s.argmax, d);
    join(max, argmax);
  }
  s.nan = __any_sync(0xffffffffu, s.nan);
  const int warp = threadIdx.x / 32;
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
    shared->max[warp] = s.max;
    shared->argmax[warp] = s.argmax;
    shared->nan[warp] = s.nan;
  }
  __syncthreads();
  for (int w = 0; w < kWarps; ++w) {
    join(shared->max[w], shared->argmax[w]);
    s.nan = s.nan || shared->nan[w];
  }
  if (s.argmax == 0x7fffffff) s.argmax = 0;
  return s;
}

template <int kSums>
__device__ void SumAll(uint64_t (&sums)[kSums], Shared* shared) {
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    for (int d = 16; d > 0; d /= 2) sums[i] += __shfl_xor_sync(0xffffffffu, sums[i], d);
  }
  __syncthreads();
  if (threadIdx.x % 32 == 0) {
#pragma unroll
    for (int i = 0; i < kSums; ++i) shared->sums[threadIdx.x / 32][i] = sums[i];
  }
  __syncthreads();
#pragma unroll
  for (int i = 0; i < kSums; ++i) {
    sums[i] = 0;
    for (int w = 0; w < kWarps; ++w) sums[i] += shared->sums[w][i];
  }
}

__device__ double SumAll(double sum, Shared* shared) {
  for (int d = 16; d > 0; d /= 2) sum += __shfl_xor_sync(0xffffffffu, sum, d);
  __syncthreads();
  if (threadIdx.x % 32 == 0) shared->doubles[threadIdx.x / 32] = sum;
  __syncthreads();
  sum = 0.0;
  for (int w = 0; w < kWarps; ++w) sum += shared->doubles[w];
  return sum;
}

// Unsigned numbers in the order of the floats.
__device__ __forceinline__ uint32_t Ordered(float x) {
  const uint32_t bits = __float_as_uint(x + 0.0f);  // -0 and 0 are equal
  return bits ^ (bits >> 31 ? 0xffffffffu : 0x80000000u);
}
// Greater is better; no two tokens have the same.
__device__ __forceinline__ uint64_t Rank(uint32_t key, int id) {
  return static_cast<uint64_t>(key) << 32 | (0xffffffffu - static_cast<uint32_t>(id));
}

// The greatest threshold such that the masses of ranks >= threshold reach `target`, or 0.
// rank(i) and mass(i) of token i; tokens of no mass may have any rank.
template <class RankOf, class MassOf>
__device__ uint64_t FindThreshold(int n, uint64_t target, const RankOf& rank, const MassOf& mass,
                                  Shared* shared) {
  uint64_t threshold = 0;
  // Pairs of bits: the key's, then those that ids differ in (all ids share the ones above).
  const int id_bits = (32 - __clz(n) + 1) / 2 * 2;
  for (int shift = 62; shift >= 0; shift -= 2) {
    if (shift < 32 && shift >= id_bits) {
      threshold |= uint64_t{3} << shift;
      continue;
    }
    uint64_t sums[3] = {};
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const uint64_t digits = rank(i) >> shift, base = threshold >> shift;
      if (digits > base) {
        const uint64_t m = mass(i);
        sums[0] += m;
        if (digits > base + 1) sums[1] += m;
        if (digits > base + 2) sums[2] += m;
      }
    }
    SumAll<3>(sums, shared);
    const uint64_t digit = sums[2] >= target   ? 3
                           : sums[1] >= target ? 2
                           : sums[0] >= target ? 1
                                               : 0;
    threshold |= digit << shift;
  }
  return threshold;
}

// The tokens that are left after the filters.
struct Kept {
  const float* logits;
  float max, inverse_temperature;
  uint64_t threshold;  // of Rank(Ordered(logit), id)
  float min_weight;
  float center,
      log_total;  // typical: surprise(i) = log_total - scaled logit, ranked by |surprise - center|
  uint64_t typical_threshold;

  __device__ float Scaled(int i) const { return (logits[i] - max) * inverse_temperature; }
  __device__ float Weight(int i) const {
    const float scaled = Scaled(i);
    // 0 * infinity where the temperature is tiny.
    return logits[i] == max ? 1.0f : scaled > -88.0f ? Exp2(scaled * kLog2E) : 0.0f;
  }
  __device__ uint64_t RankOf(int i) const { return Rank(Ordered(logits[i]), i); }
  __device__ uint64_t TypicalRankOf(int i) const {
    return Rank(~__float_as_uint(fabsf(log_total - Scaled(i) - center)), i);
  }
  __device__ bool Has(int i) const {
    return RankOf(i) >= threshold &&
           (typical_threshold == 0 || TypicalRankOf(i) >= typical_threshold);
  }
  __device__ uint64_t MassOf(int i) const {
    const float w = Weight(i);
    return w >= min_weight && Has(i) ? __float2ull_rn(w * kOne) : 0;
  }
};

__device__ uint64_t TotalMass(const Kept& kept, int n, Shared* shared) {
  uint64_t sums[1] = {0};
  for (int i = threadIdx.x; i < n; i += kThreads) sums[0] += kept.MassOf(i);
  SumAll<1>(sums, shared);
  return sums[0];
}

__device__ uint64_t Share(float part, uint64_t total) {
  const uint64_t mass =
      static_cast<uint64_t>(ceil(static_cast<double>(part) * static_cast<double>(total)));
  return mass > 0 ? mass : 1;
}

// The first token, in ascending order, at which the running mass exceeds u times the total.
__device__ int Draw(const Kept& kept, int n, uint64_t total, double u, Shared* shared) {
  uint64_t target = static_cast<uint64_t>(u * static_cast<double>(total));
  if (target >= total) target = total - 1;
  const int each = (n + kThreads - 1) / kThreads;
  const int begin = min(static_cast<int>(threadIdx.x) * each, n), end = min(begin + each, n);
  uint64_t own = 0;
  for (int i = begin; i < end; ++i) own += kept.MassOf(i);
  uint64_t before = own;  // inclusive within the warp, then exclusive within the block
  const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
  for (int d = 1; d < 32; d *= 2) {
    const uint64_t from = __shfl_up_sync(0xffffffffu, before, d);
    if (lane >= d) before += from;
  }
  __syncthreads();
  if (lane == 31) shared->sums[warp][0] = before;
  __syncthreads();
  before -= own;
  for (int w = 0; w < warp; ++w) before += shared->sums[w][0];
  if (before <= target && target < before + own) {
    for (int i = begin; i < end; ++i) {
      before += kept.MassOf(i);
      if (before > target) {
        shared->picked = i;
        break;
      }
    }
  }
  __syncthreads();
  return shared->picked;
}

__device__ bool HasPenalties(const LogitMeta& row) {
  const SamplingConfig& c = row.sampling;
  return row.counts >= 0 && (c.repetition_penalty != 1.0f || c.presence_penalty != 0.0f ||
                             c.frequency_penalty != 0.0f);
}

// out = logits after penalties, bias and bans.
__device__ void Adjust(const SamplerArgs& a, const LogitMeta& row, const float* logits,
                       float* out) {
  const bool penalties = HasPenalties(row);
  const uint32_t* counts = a.counts + (penalties ? static_cast<int64_t>(row.counts) * a.vocab : 0);
  for (int i = threadIdx.x; i < a.vocab; i += kThreads) {
    float x = logits[i];
    if (penalties) {
      const uint32_t entry = counts[i];
      if (entry != 0) {
        x = x > 0.0f ? x / row.sampling.repetition_penalty : x * row.sampling.repetition_penalty;
        const uint32_t count = entry & ~kSeenInPrompt;
        if (count != 0) x -= row.sampling.frequency_penalty * count + row.sampling.presence_penalty;
      }
    }
    out[i] = x;
  }
  __syncthreads();
  const TokenBias* bias = MetaArray<TokenBias>(a.meta, a.meta->biases) + row.bias;
  for (int i = threadIdx.x; i < row.num_bias; i += kThreads)
    atomicAdd(out + bias[i].token, bias[i].bias);
  __syncthreads();
  const int32_t* banned = MetaArray<int32_t>(a.meta, a.meta->banned) + row.banned;
  for (int i = threadIdx.x; i < row.num_banned; i += kThreads) out[banned[i]] = -INFINITY;
  for (int i = a.sampled + threadIdx.x; i < a.vocab; i += kThreads) out[i] = -INFINITY;
  __syncthreads();
}

// `work`: room for a row, or null when nothing of it will be changed or read often.
__device__ int Sample(const SamplerArgs& a, const LogitMeta& row, const float* logits, float* work,
                      Summary summary, Shared* shared) {
  const SamplingConfig& config = row.sampling;
  const bool adjust =
      HasPenalties(row) || row.num_bias > 0 || row.num_banned > 0 || a.sampled < a.vocab;
  if (adjust || (config.temperature != 0.0f && a.adjusted == nullptr)) {
    Adjust(a, row, logits, work);
    logits = work;
  }
  if (adjust) summary = Summarize(logits, a.vocab, shared);
  if (config.temperature == 0.0f || !isfinite(summary.max)) return summary.argmax;

  const int n = a.vocab;
  Kept kept = {logits, summary.max, 1.0f / config.temperature, 0, 0.0f, 0.0f, 0.0f, 0};
  const auto rank = [&](int i) { return kept.RankOf(i); };
  const auto mass = [&](int i) { return kept.MassOf(i); };
  if (config.top_k > 0 && config.top_k < n) {
    kept.threshold = FindThreshold(
        n, config.top_k, rank, [](int) { return uint64_t{1}; }, shared);
  }
  if (config.top_p < 1.0f) {
    const uint64_t wanted = Share(config.top_p, TotalMass(kept, n, shared));
    const uint64_t threshold = FindThreshold(n, wanted, rank, mass, shared);
    if (threshold > kept.threshold) kept.threshold = threshold;
  }
  kept.min_weight = config.min_p;
  uint64_t total = TotalMass(kept, n, shared);
  if (config.typical_p < 1.0f) {
    const double log_total = log(static_cast<double>(total) / kOne);
    double entropy = 0.0;
    for (int i = threadIdx.x; i < n; i += kThreads) {
      const uint64_t m = kept.MassOf(i);
      if (m > 0)
        entropy +=
            static_cast<double>(m) / static_cast<double>(total) * (log_total - kept.Scaled(i));
    }
    kept.center = static_cast<float>(SumAll(entropy, shared));
    kept.log_total = static_cast<float>(log_total);
    const auto typical_rank = [&](int i) { return kept.TypicalRankOf(i); };
    const uint64_t threshold =
        FindThreshold(n, Share(config.typical_p, total), typical_rank, mass, shared);
    kept.typical_threshold = threshold;
    total = TotalMass(kept, n, shared);
  }
  return Draw(kept, n, total, UniformAt(row.seed, row.sequence, row.position), shared);
}

// Log-probabilities of the model's own logits.
__device__ void Score(const SamplerArgs& a, const LogitMeta& row, const float* logits, float max,
                      int token, LogitResult* result, Shared* shared) {
  const int n = a.vocab;
  double sum = 0.0;
  uint64_t better[1] = {0};
  const float own = logits[token];
  for (int i = threadIdx.x; i < n; i += kThreads) {
    const float x = logits[i];
    sum += static_cast<double>(__expf(x - max));
    better[0] += x > own || (x == own && i < token);
  }
  const double log_total = log(SumAll(sum, shared));
  SumAll<1>(better, shared);
  const auto logprob = [&](int id) {
    return static_cast<float>(static_cast<double>(logits[id]) - max - log_total);
  };
  if (threadIdx.x == 0) {
    result->logprob = logprob(token);
    result->rank = 1 + static_cast<int>(better[0]);
    shared->num_best = 0;
  }
  const int count = min(min(row.alternatives, kMaxAlternatives), n);
  if (count == 0) return;
  const auto rank = [&](int i) { return Rank(Ordered(logits[i]), i); };
  // Tokens at -infinity are none.
  const uint64_t threshold = FindThreshold(
      n, count, rank, [&](int i) { return uint64_t{logits[i] > -INFINITY}; }, shared);
  __syncthreads();
  for (int i = threadIdx.x; i < n; i += kThreads) {
    if (rank(i) >= threshold && logits[i] > -INFINITY) {
      const int at = atomicAdd(&shared->num_best, 1);
      if (at < kMaxAlternatives) shared->best[at] = i;
    }
  }
  __syncthreads();
  if (threadIdx.x != 0) return;
  const int found = min(shared->num_best, count);
  for (int i = 0; i < found; ++i) {
    int best = i;
    for (int j = i + 1; j < found; ++j) {
      if (rank(shared->best[j]) > rank(shared->best[best])) best = j;
    }
    const int id = shared->best[best];
    shared->best[best] = shared->best[i];
    result->alternatives[i].token = id;
    result->alternatives[i].logprob = logprob(id);
  }
  result->num_alternatives = found;
}

__global__ void __launch_bounds__(kThreads) SamplerKernel(const __grid_constant__ SamplerArgs a) {
  extern __shared__ float row_in_shared[];
  __shared__ Shared shared;
  WaitForPredecessor();
  const int index = a.first + blockIdx.x;
  if (index >= a.meta->num_logits) return;
  const LogitMeta row = MetaArray<LogitMeta>(a.meta, a.meta->logits)[index];
  LogitResult* result = a.meta->results + index;
  const float* logits = a.logits + blockIdx.x * a.stride;
  const Summary summary = Summarize(logits, a.vocab, &shared);
  if (threadIdx.x == 0) {
    result->logprob = 0.0f;
    result->rank = 0;
    result->num_alternatives = 0;
    result->finite = !summary.nan && isfinite(summary.max);
    result->token = -1;
  }
  if (summary.nan || !isfinite(summary.max)) return;
  int token = row.target;
  if (row.target == kNoTarget) {
    float* work = a.adjusted != nullptr ? a.adjusted + blockIdx.x * a.stride : row_in_shared;
    token = Sample(a, row, logits, work, summary, &shared);
    if (threadIdx.x == 0) {
      a.last_sampled[row.slot] = token;
      if (row.counts >= 0) {
        uint32_t* entry = a.counts + static_cast<int64_t>(row.counts) * a.vocab + token;
        if ((*entry & ~kSeenInPrompt) != ~kSeenInPrompt) ++*entry;
      }
    }
  }
  if (threadIdx.x == 0) result->token = token;
  if (row.alternatives >= 0) Score(a, row, logits, summary.max, token, result, &shared);
}

__global__ void MarkSeenKernel(uint32_t* table, const int32_t* tokens, int count, int vocab) {
  WaitForPredecessor();
  const int i = blockIdx.x * 256 + threadIdx.x;
  if (i < count && tokens[i] >= 0 && tokens[i] < vocab) table[tokens[i]] = kSeenInPrompt;
}

}  // namespace

bool SamplerNeedsScratch(int32_t vocab) { return vocab > kSharedLogits; }

cudaError_t LaunchSampler(const SamplerArgs& args, int grid_rows, cudaStream_t stream) {
  const int bytes = args.adjusted != nullptr ? 0 : args.vocab * static_cast<int>(sizeof(float));
  if (bytes > 0) {
    const cudaError_t prepared =
        cudaFuncSetAttribute(SamplerKernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
    if (prepared != cudaSuccess) return prepared;
  }
  return Launch(SamplerKernel, grid_rows, kThreads, bytes, stream, 1, args);
}

cudaError_t LaunchMarkSeen(uint32_t* table, const int32_t* tokens, int count, int32_t vocab,
                           cudaStream_t stream) {
  if (count == 0) return cudaSuccess;
  return Launch(MarkSeenKernel, (count + 255) / 256, 256, 0, stream, 1, table, tokens, count,
                vocab);
}

}  // namespace sluice::cuda
