// A model directory as flash-linear-attention saves it: config.json, optionally
// generation_config.json, and the weights in safetensors, one file or many.
#ifndef SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_H_
#define SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_H_

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/checkpoint/config.h"
#include "engine/weights.h"
#include "kernels/weight_store.h"

namespace sluice {

class WeightFiles;
class TensorTable;

struct LoadOptions {
  bool allow_nonfinite = false;  // load weights that hold NaN or infinities all the same
};

// config.json and generation_config.json. An error is one line that begins with the file's name;
// `refusals` gets one for each reason.
absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir,
                                            std::vector<std::string>* refusals = nullptr);

// "models/tiny/" is "tiny"; of "." and the like, the name that the path resolves to.
std::string ModelName(const std::string& dir);

// An open directory: config read, every tensor located, its dtype and shape checked; no weights
// read yet. Used by one thread at a time.
class Checkpoint {
 public:
  // Errors are one line that begins with the file, then names field or tensor, and the rule.
  static absl::StatusOr<std::unique_ptr<Checkpoint>> Open(const std::string& dir);
  ~Checkpoint();

  const ModelConfig& config() const { return config_; }
  const std::string& name() const { return name_; }  // the directory's base name
  int64_t parameters() const { return parameters_; }
  int64_t weight_bytes() const { return weight_bytes_; }  // as stored
  const std::string& weight_dtype() const {
    return weight_dtype_;
  }  // of most bytes: "bf16", "fp16" or "fp32"

  // Reads all weights into `store`, a backend. INVALID_ARGUMENT names a tensor that holds a NaN or
  // an infinity; DATA_LOSS a file that has become shorter; RESOURCE_EXHAUSTED: memory. On success
  // `fingerprint` is the XXH3-128 in hex of config and tensors: equal ones mean equal models.
  absl::StatusOr<Weights> Load(WeightStore* store, const LoadOptions& options,
                               std::string* fingerprint) const;

 private:
  Checkpoint();
  void Count();

  std::string name_;
  ModelConfig config_;
  std::unique_ptr<WeightFiles> files_;
  std::unique_ptr<TensorTable> tensors_;
  int64_t parameters_ = 0;
  int64_t weight_bytes_ = 0;
  std::string weight_dtype_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_CHECKPOINT_H_
