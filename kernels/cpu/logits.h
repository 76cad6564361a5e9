// The end of a step: logits = norm(x) W^T for the rows that want them, in tiles of rows so
// that scoring many rows takes no more memory than a few; then each row is scored or sampled.
#ifndef SLUICE_KERNELS_CPU_LOGITS_H_
#define SLUICE_KERNELS_CPU_LOGITS_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/sampler.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/cpu/token_counts.h"
#include "kernels/ops.h"
#include "kernels/step_rows.h"

namespace sluice {

class LogitsOp {
 public:
  LogitsOp(ThreadPool* pool, StatePool* states, TokenCounts* counts)
      : pool_(pool), states_(states), counts_(counts) {}

  // Once. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelSpec& spec);

  void Run(const StepRows& rows, const LogitsArgs& args);

 private:
  // Rows [begin, end) of StepRows::logits.
  void RunTile(const StepRows& rows, const LogitsArgs& args, int64_t begin, int64_t end);
  void FinishRow(const LogitRow& row, const float* logits, Sampler* sampler, LogitResult* result);

  ThreadPool* const pool_;
  StatePool* const states_;
  TokenCounts* const counts_;
  int64_t vocab_ = 0;
  HostBuffer normed_;              // (tile rows, hidden)
  HostBuffer logits_;              // (tile rows, vocab)
  std::vector<int32_t> source_;    // (tile rows): which row of logits_ a row of the tile reads
  std::vector<Sampler> samplers_;  // one a thread
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LOGITS_H_
