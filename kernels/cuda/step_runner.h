// Runs a step's recorded ops: which kernels, with what, in which order.
#ifndef SLUICE_KERNELS_CUDA_STEP_RUNNER_H_
#define SLUICE_KERNELS_CUDA_STEP_RUNNER_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/cuda/fault_latch.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/mixer.h"
#include "kernels/cuda/step_packer.h"
#include "kernels/cuda/workspace.h"
#include "kernels/ops.h"

namespace sluice::cuda {

using Op =
    std::variant<EmbedArgs, NormProjectArgs, MixArgs, ProjectAddArgs, NormGateUpArgs, LogitsArgs>;

// The purpose of a run of the ops. Kernels look up the rest in `meta`.
struct StepView {
  const StepHeader* meta = nullptr;  // device memory
  const StepPlan* plan = nullptr;    // of the prompts
  int32_t decode = 0;  // rows; those that are more than the step has are never looked at
  int32_t logits = 0;  // rows, likewise
  const StepRows* rows = nullptr;  // where logits are copied to; null: nowhere
};

class StepRunner {
 public:
  // All outlive it.
  StepRunner(int64_t vocab, int64_t sampled_tokens, const Workspace* workspace, GemmLt* lt,
             bool batch_invariant, FaultLatch* latch, cudaStream_t stream)
      : vocab_(vocab),
        sampled_tokens_(sampled_tokens),
        work_(*workspace),
        lt_(lt),
        batch_invariant_(batch_invariant),
        latch_(*latch),
        stream_(stream) {}

  void Run(const std::vector<Op>& ops, const StepView& step);
  // The logits in memory, of logit rows [first, first + count), to where `rows` wants them.
  void CopyLogits(const StepRows& rows, int32_t first, int32_t count);

  // The spec's part of what gla's fused kernels need.
  static MixerLaunch GlaArgs(const MixerSpec& spec);

 private:
  // Without batch invariance, more rows than this go to the library.
  static constexpr int32_t kStreamRows = 32;

  void Do(const EmbedArgs& args);
  void Do(const NormProjectArgs& args);
  void Do(const MixArgs& args);
  void Do(const ProjectAddArgs& args);
  void Do(const NormGateUpArgs& args);
  void Do(const LogitsArgs& args);
  // The norm of x into normed(), of the rows for which the product before has not done it.
  void NormRows(const Activation& x, const StreamNorm& norm);
  // y = norm(x) W^T, in bf16; of NormProjectArgs or NormGateUpArgs.
  template <class Args>
  void NormMultiply(const Args& args, const Activation& y, RowStore store);
  const float* WeightOf(const StreamNorm& norm) const {
    return norm.weight.size > 0 ? norm.weight.data : work_.ones();
  }
  // Mixers that gla's fused kernels compute, softmax layers, and all others.
  void MixGla(const MixArgs& args);
  void MixSoftmax(const MixArgs& args);
  void MixLinear(const MixArgs& args);
  void PromptMixer(const MixerSpec& spec, const MixerLaunch& mixer);

  struct Product {
    const __nv_bfloat16* x;
    int64_t x_cols;
    const Linear& weight;
    void* y;
    int64_t y_cols;
    int64_t y_bytes;  // of an element
    RowStore store;
    const float* next_norm = nullptr;   // streamed rows leave this norm of y for the next product
    const Norm* norm_before = nullptr;  // and so they have been left x
  };
  // y = x W^T for the streamed rows, then for all others.
  void Multiply(const Product& product);
  void MultiplyRows(const Product& product, int64_t rows);
  void MultiplyMany(const Product& product, int64_t first, int64_t rows);

  bool Check(cudaError_t error, absl::string_view what) { return latch_.Check(error, what); }
  int32_t all_rows() const { return step_.decode + step_.plan->num_prompt; }
  // The first rows, which go through MultiplyRows: decode rows and short prompts.
  int32_t streamed_rows() const {
    const bool streams = batch_invariant_ || all_rows() <= kStreamRows;
    return streams ? step_.decode + step_.plan->num_short : 0;
  }

  const int64_t vocab_;
  const int64_t sampled_tokens_;
  const Workspace& work_;
  GemmLt* const lt_;
  const bool batch_invariant_;
  FaultLatch& latch_;
  const cudaStream_t stream_;
  StepView step_;
  // The norm of x that the last product has left for streamed rows; null: none.
  const StreamNorm* left_norm_ = nullptr;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STEP_RUNNER_H_
