// The safetensors files of a model directory, one or many, as a single table of tensors.
#ifndef SLUICE_ENGINE_CHECKPOINT_WEIGHT_FILES_H_
#define SLUICE_ENGINE_CHECKPOINT_WEIGHT_FILES_H_

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/checkpoint_file.h"
#include "engine/checkpoint/safetensors.h"

namespace sluice {

// A tensor and the file that holds it.
struct StoredTensor {
  const CheckpointFile* file = nullptr;
  const std::string* name = nullptr;
  const TensorInfo* info = nullptr;

  int64_t bytes() const { return info->end - info->begin; }
};

class WeightFiles {
 public:
  // Reads the headers of model.safetensors, or else of the shards that model.safetensors.index.json
  // names: plain file names in the same directory, each with exactly the tensors that the index
  // gives it.
  static absl::StatusOr<std::unique_ptr<WeightFiles>> Open(const std::string& dir);

  using Table = std::map<absl::string_view, StoredTensor>;
  const Table& tensors() const { return tensors_; }

  // "model.safetensors", or the index: where a tensor that is in no file should have been.
  const std::string& root() const { return root_; }

 private:
  struct Shard {
    std::unique_ptr<CheckpointFile> file;
    TensorMap tensors;
  };

  WeightFiles() = default;
  absl::Status OpenShard(const std::string& dir, const std::string& name);
  absl::Status OpenShards(const std::string& dir);

  std::string root_;
  std::vector<std::unique_ptr<Shard>> shards_;
  Table tensors_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_WEIGHT_FILES_H_
