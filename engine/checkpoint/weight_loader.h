// Reads the tensors of a model once, checks and hashes them, and hands them to a store.
#ifndef SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_
#define SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_

#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/tensor_table.h"
#include "engine/weights.h"
#include "kernels/weight_store.h"

namespace sluice {

// Does the work of Checkpoint::Load.
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, const TensorTable& table,
                                    bool allow_nonfinite, WeightStore* store,
                                    std::string* fingerprint);

// Calls `store` as LoadWeights would, but reads no values: `data` is null. A head that a tied model
// has in its file counts, whether or not it repeats the embeddings.
absl::Status MeasureWeights(const ModelConfig& config, const TensorTable& table,
                            WeightStore* store);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_
