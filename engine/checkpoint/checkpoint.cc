#include "engine/checkpoint/checkpoint.h"

#include <algorithm>
#include <cstdlib>
#include <iterator>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/strip.h"
#include "engine/checkpoint/checkpoint_file.h"
#include "engine/checkpoint/tensor_table.h"
#include "engine/checkpoint/weight_files.h"
#include "engine/checkpoint/weight_loader.h"

namespace sluice {
namespace {

constexpr char kConfigFile[] = "config.json";
constexpr char kGenerationConfigFile[] = "generation_config.json";
constexpr int64_t kMaxConfigBytes = 1 << 20;

}  // namespace

std::string ModelName(const std::string& dir) {
  const auto last_part = [](absl::string_view path) {
    while (absl::ConsumeSuffix(&path, "/")) {
    }
    const size_t slash = path.rfind('/');
    return std::string(slash == absl::string_view::npos ? path : path.substr(slash + 1));
  };
  std::string name = last_part(dir);
  if (!name.empty() && name != "." && name != "..") return name;
  const std::unique_ptr<char, decltype(&std::free)> path(realpath(dir.c_str(), nullptr),
                                                         &std::free);
  return path == nullptr ? name : last_part(path.get());
}

absl::StatusOr<ModelConfig> ReadModelConfig(const std::string& dir,
                                            std::vector<std::string>* refusals) {
  const auto refuse = [refusals](const absl::Status& status) {
    if (refusals != nullptr) refusals->emplace_back(status.message());
    return status;
  };
  absl::StatusOr<std::string> text = ReadTextFile(dir, kConfigFile, kMaxConfigBytes);
  if (!text.ok()) return refuse(text.status());
  absl::StatusOr<ModelConfig> config = ParseConfig(*text, kConfigFile, refusals);
  if (!config.ok()) return config;
  text = ReadTextFile(dir, kGenerationConfigFile, kMaxConfigBytes);
  if (absl::IsNotFound(text.status())) return config;
  if (!text.ok()) return refuse(text.status());
  const absl::Status status = ApplyGenerationConfig(*text, kGenerationConfigFile, &*config);
  if (!status.ok()) return refuse(status);
  return config;
}

Checkpoint::Checkpoint() = default;
Checkpoint::~Checkpoint() = default;

absl::StatusOr<std::unique_ptr<Checkpoint>> Checkpoint::Open(const std::string& dir) {
  absl::StatusOr<ModelConfig> config = ReadModelConfig(dir);
  if (!config.ok()) return config.status();
  auto files = WeightFiles::Open(dir);
  if (!files.ok()) return files.status();
  absl::StatusOr<TensorTable> tensors = LocateTensors(*config, **files);
  if (!tensors.ok()) return tensors.status();

  std::unique_ptr<Checkpoint> checkpoint(new Checkpoint);
  checkpoint->name_ = ModelName(dir);
  checkpoint->config_ = std::move(*config);
  for (std::string& note : tensors->SkippedNotes()) {
    checkpoint->config_.notes.push_back(std::move(note));
  }
  checkpoint->files_ = std::move(*files);
  checkpoint->tensors_ = std::make_unique<TensorTable>(std::move(*tensors));
  checkpoint->Count();
  return checkpoint;
}

void Checkpoint::Count() {
  constexpr const char* kNames[] = {"fp32", "fp16", "bf16"};  // by DType
  int64_t bytes[std::size(kNames)] = {};
  ForEachTensor(*tensors_, [&](const TableEntry& tensor) {
    parameters_ += tensor.elements();
    weight_bytes_ += tensor.stored.bytes();
    bytes[static_cast<int>(tensor.dtype)] += tensor.stored.bytes();
  });
  weight_dtype_ = kNames[std::max_element(std::begin(bytes), std::end(bytes)) - std::begin(bytes)];
}

absl::StatusOr<Weights> Checkpoint::Load(WeightStore* store, const LoadOptions& options,
                                         std::string* fingerprint) const {
  return LoadWeights(config_, *tensors_, options.allow_nonfinite, store, fingerprint);
}

}  // namespace sluice
