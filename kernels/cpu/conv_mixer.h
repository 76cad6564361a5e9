// Token mixers of Core::kShortConv, gated short convolutions (LFM2, arXiv 2511.23404):
//   u = k v,   o[t] = q[t] (sum_{j < taps} w[j] u[t - (taps - 1) + j] + bias)
// for each channel. Their whole state is the tail of u.
#ifndef SLUICE_KERNELS_CPU_CONV_MIXER_H_
#define SLUICE_KERNELS_CPU_CONV_MIXER_H_

#include <cstdint>

#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"
#include "kernels/step_rows.h"

namespace sluice {

class ConvMixer {
 public:
  ConvMixer(ThreadPool* pool, StatePool* states) : pool_(pool), states_(states) {}

  void Run(const StepRows& rows, const MixArgs& args);

 private:
  // Rows [row, row + length) of the step, which follow one another in one sequence.
  void RunRows(const MixArgs& args, int32_t slot, int64_t row, int64_t length);

  ThreadPool* const pool_;
  StatePool* const states_;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_CONV_MIXER_H_
