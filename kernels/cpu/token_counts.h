// Tables of token counts for the sampling penalties: for each token, whether the prompt holds it
// and how often it was generated.
#ifndef SLUICE_KERNELS_CPU_TOKEN_COUNTS_H_
#define SLUICE_KERNELS_CPU_TOKEN_COUNTS_H_

#include <cstdint>

#include "absl/status/status.h"
#include "absl/types/span.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/step_rows.h"

namespace sluice {

class TokenCounts {
 public:
  // Once. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(int32_t tables, int64_t vocab);

  // The table holds `prompt`'s tokens as seen and none as generated.
  void Reset(int32_t table, absl::Span<const int32_t> prompt);
  void AddGenerated(int32_t table, int32_t token);

  // Changes logits (vocab). Tokens seen in prompt or generated: positive logits are divided by the
  // repetition penalty, others multiplied. Then, for generated ones, minus frequency_penalty *
  // count and presence_penalty.
  void ApplyPenalties(int32_t table, const SamplingConfig& config, float* logits) const;

 private:
  uint32_t* Table(int32_t table) const;

  int32_t tables_ = 0;
  int64_t vocab_ = 0;
  HostBuffer buffer_;  // (tables, vocab): how often generated, and kSeenInPrompt
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_TOKEN_COUNTS_H_
