// Which of a checkpoint's tensors is which of the model's: located, of a dtype that we read, of the
// right shape.
#ifndef SLUICE_ENGINE_CHECKPOINT_MODEL_TENSORS_H_
#define SLUICE_ENGINE_CHECKPOINT_MODEL_TENSORS_H_

#include <cstdint>
#include <optional>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/weight_files.h"
#include "kernels/ops.h"

namespace sluice {

struct ModelTensor {
  StoredTensor stored;
  DType dtype = DType::kF32;
  int64_t rows = 0;  // 1 for a vector
  int64_t cols = 0;

  int64_t elements() const { return rows * cols; }
};

// Shapes as in LayerWeights.
struct LayerTensors {
  ModelTensor attn_norm;
  ModelTensor q_proj, k_proj, v_proj, gk_proj_0;
  std::optional<ModelTensor> g_proj;  // with an output gate
  ModelTensor gk_proj_1, gk_proj_1_bias;
  std::optional<ModelTensor> q_conv1d, k_conv1d, v_conv1d;  // with short convolution
  std::optional<ModelTensor> head_norm;                     // with elementwise_affine
  ModelTensor o_proj;
  ModelTensor mlp_norm;
  ModelTensor gate_proj;  // (intermediate, hidden), or (2 * intermediate, hidden): gate, then up
  std::optional<ModelTensor> up_proj;  // absent when gate_proj holds both
  ModelTensor down_proj;
};

struct ModelTensors {
  ModelTensor embeddings;
  std::vector<LayerTensors> layers;
  ModelTensor norm;
  std::optional<ModelTensor> lm_head;  // absent only when tied
};

// INVALID_ARGUMENT names file, tensor, what was found and what must be: for one that is missing,
// has another shape or dtype, or is no part of this model. A tied model may have an lm_head
// (transformers 5 uses it, too).
absl::StatusOr<ModelTensors> LocateTensors(const ModelConfig& config, const WeightFiles& files);

// Calls `visit(const ModelTensor&)` for each, in model order.
template <typename Visit>
void ForEachTensor(const ModelTensors& tensors, Visit visit) {
  const auto visit_optional = [&](const std::optional<ModelTensor>& tensor) {
    if (tensor) visit(*tensor);
  };
  visit(tensors.embeddings);
  for (const LayerTensors& layer : tensors.layers) {
    for (const ModelTensor* tensor :
         {&layer.attn_norm, &layer.q_proj, &layer.k_proj, &layer.v_proj, &layer.gk_proj_0,
          &layer.gk_proj_1, &layer.gk_proj_1_bias, &layer.o_proj, &layer.mlp_norm, &layer.gate_proj,
          &layer.down_proj}) {
      visit(*tensor);
    }
    for (const auto* tensor : {&layer.g_proj, &layer.q_conv1d, &layer.k_conv1d, &layer.v_conv1d,
                               &layer.head_norm, &layer.up_proj}) {
      visit_optional(*tensor);
    }
  }
  visit(tensors.norm);
  visit_optional(tensors.lm_head);
}

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_MODEL_TENSORS_H_
