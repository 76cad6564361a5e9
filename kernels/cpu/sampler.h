// Picks the next token from one row of logits, in the order that ops.h states: penalties, bias,
// banned ids, temperature, top-k, top-p, min-p, typical. Ties go to the lower id. Temperature 0
// takes the most likely token after bans.
//
// The token is the inverse of the cumulative distribution at UniformAt(seed, sequence, position):
// the first token in ascending id order, among those kept, at which the running sum of weights
// exp((logit - max) / temperature) exceeds u times their total. Blocks of 256 ids are summed in
// fp32 and added up in fp64.
#ifndef SLUICE_KERNELS_CPU_SAMPLER_H_
#define SLUICE_KERNELS_CPU_SAMPLER_H_

#include <cstdint>

#include "absl/status/status.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/logit_scan.h"
#include "kernels/cpu/token_counts.h"
#include "kernels/step_rows.h"

namespace sluice {

// One thread's work space.
class Sampler {
 public:
  // Only the first `sampled` of `vocab` tokens are ever drawn, as if the others were banned.
  absl::Status Allocate(int64_t vocab, int64_t sampled);

  // `logits` (vocab), padded with -infinity to a line; holds a finite value and no NaN. `summary`
  // is of `logits`. `counts` is read where row.counts >= 0.
  int32_t Sample(const LogitRow& row, const float* logits, const LogitSummary& summary,
                 const TokenCounts& counts);

  // The `count` most likely tokens, best first: ids (count). At most `vocab`; returns how many.
  int64_t TopTokens(const float* logits, int64_t count, int32_t* ids);

 private:
  // Puts the `k` best tokens by logit into candidates_, best first; tokens at -infinity are none.
  void KeepTopK(const float* logits, int64_t k);
  void KeepWeightsAbove(float threshold);
  // The filters of `config`, in order. False: there are none, and candidates_ means nothing.
  bool Filter(const float* logits, float max, double total, const SamplingConfig& config);
  // Keeps the shortest run of candidates whose weights reach `mass`, in the order of `before`.
  // `key(id)` >= 0 never decreases along that order.
  template <class Key, class Before>
  void KeepMass(double mass, const Key& key, const Before& before);
  void KeepTypical(const float* logits, float max, const SamplingConfig& config);
  double CandidateTotal() const;
  // Clears the weights of all tokens but the candidates.
  void ForgetOthers();
  double BlockTotal() const;
  int32_t Draw(double u) const;

  int64_t vocab_ = 0;
  int64_t sampled_ = 0;
  HostBuffer adjusted_;       // (vocab) logits after penalties, bias and bans
  HostBuffer weights_;        // (vocab)
  HostBuffer block_sums_;     // (vocab / kSumBlock)
  HostBuffer candidate_ids_;  // (vocab + a line)
  HostBuffer border_ids_;     // (vocab)
  HostBuffer scratch_;        // (vocab)
  HostBuffer bucket_mass_;    // (kBuckets) fp64
  int32_t* candidates_ = nullptr;
  int64_t num_candidates_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_SAMPLER_H_
