// The device memory that a model's mixers work in, but for gla's: what front, core and back leave
// for each other.
#ifndef SLUICE_KERNELS_CUDA_LINEAR_WORKSPACE_H_
#define SLUICE_KERNELS_CUDA_LINEAR_WORKSPACE_H_

#include <cuda_bf16.h>

#include <cstdint>
#include <vector>

#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/linear.h"
#include "kernels/model_spec.h"

namespace sluice::cuda {

// A piece of memory that is to be allocated.
struct PlannedBuffer {
  int64_t bytes;  // -1: too large
  const char* what;
  Memory* to;
};

class LinearWorkspace {
 public:
  // Bytes for each decode row that a step can have; there are as many as slots.
  static int64_t BytesPerRow(const ModelSpec& spec);
  // Everything else; nothing where all of the model's mixers are fused.
  void Plan(const ModelSpec& spec, int32_t max_rows, int64_t chunks,
            std::vector<PlannedBuffer>* plan);
  void PlanRows(const ModelSpec& spec, int32_t rows, std::vector<PlannedBuffer>* plan);

  float* decode_front() const { return decode_front_.as<float>(); }
  __nv_bfloat16* prompt_front() const { return prompt_front_.as<__nv_bfloat16>(); }
  // Core::kDelta's, of every row of a step: front, beta, and D - 1.
  float* wide_front() const { return wide_front_.as<float>(); }
  float* beta() const { return beta_.as<float>(); }
  float* loss() const { return loss_.as<float>(); }
  float* log_decay() const { return log_decay_.as<float>(); }
  float* key_scale() const { return key_scale_.as<float>(); }
  float* log_sums() const { return log_sums_.as<float>(); }
  float* map_products() const { return map_products_.as<float>(); }
  float* gate() const { return gate_.as<float>(); }
  float* softmax_parts() const { return softmax_parts_.as<float>(); }  // SoftmaxArgs::parts
  LinearDecodeBuffers decode() const;
  LinearBuffers prompts(const ChunkBuffers& chunk) const;

 private:
  Memory decode_front_, decode_o_, decode_denominators_, arrivals_;
  Memory prompt_front_, log_decay_, key_scale_, log_sums_, map_products_, gate_;
  Memory wide_front_, beta_, loss_, softmax_parts_;
  Memory decays_, denominators_, key_sums_;
};

// Elements of a row of front: q | k | v.
int64_t FrontStride(const MixerSpec& spec);

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LINEAR_WORKSPACE_H_
