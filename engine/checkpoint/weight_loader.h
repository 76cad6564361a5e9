// Reads the tensors of a model once, checks and hashes them, and hands them to a backend.
#ifndef SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_
#define SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_

#include <string>

#include "absl/status/statusor.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/model_tensors.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace sluice {

// As Checkpoint::Load.
absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, const ModelTensors& tensors,
                                    bool allow_nonfinite, Backend* backend,
                                    std::string* fingerprint);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_WEIGHT_LOADER_H_
