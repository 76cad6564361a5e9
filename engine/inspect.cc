#include "engine/inspect.h"

#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "engine/checkpoint/checkpoint.h"
#include "engine/checkpoint/tensor_table.h"
#include "engine/checkpoint/weight_files.h"
#include "engine/checkpoint/weight_loader.h"
#include "engine/model_tokenizer.h"
#include "kernels/footprint.h"
#include "kernels/state_table.h"

namespace sluice {
namespace {

void Refuse(const absl::Status& status, Inspection* result) {
  if (!status.ok()) result->refusals.emplace_back(status.message());
}

Inspection::Files CountFiles(const WeightFiles& files) {
  Inspection::Files result;
  std::set<const CheckpointFile*> seen;
  for (const auto& [name, tensor] : files.tensors()) {
    if (seen.insert(tensor.file).second) result.bytes += tensor.file->size();
    int64_t elements = 1;  // the header's parser has bounded it by the file's size
    for (const int64_t size : tensor.info->shape) elements *= size;
    result.parameters += elements;
    result.bytes_by_dtype[std::string(tensor.info->dtype)] += tensor.bytes();
  }
  result.count = static_cast<int64_t>(seen.size());
  result.tensors = static_cast<int64_t>(files.tensors().size());
  return result;
}

Inspection::Device Measure(DeviceKind kind, const ModelConfig& config, const TensorTable& table) {
  Inspection::Device device;
  device.name = kind == DeviceKind::kCpu ? "cpu" : "cuda";
  device.refusal = std::string(CheckSpec(kind, config.spec).message());
  WeightSizer sizer(kind);
  // A sizer never fails, and nothing is read.
  if (MeasureWeights(config, table, &sizer).ok()) device.weight_bytes = sizer.bytes();
  device.slot_bytes = SlotBytes(kind, config.spec);
  return device;
}

void InspectTensors(const WeightFiles& files, const InspectOptions& options, Inspection* result) {
  const ModelConfig& config = *result->config;
  const absl::StatusOr<TensorTable> tensors = LocateTensors(config, files, &result->refusals);
  if (!tensors.ok()) return;
  Inspection::Layout layout;
  int64_t gate_up = 0, mlps = 0;
  for (const TableEntry& entry : tensors->entries()) {
    if (entry.into == Into(&MlpWeights::gate_up)) ++gate_up;
    if (entry.into == Into(&Weights::lm_head)) layout.has_lm_head = true;
  }
  ForEachMlp(config.spec, [&](int64_t, const MlpSpec&) { ++mlps; });
  layout.fused_gate_up = gate_up < 2 * mlps;
  result->layout = layout;
  result->devices = {Measure(DeviceKind::kCpu, config, *tensors),
                     Measure(DeviceKind::kCuda, config, *tensors)};
  result->state_bytes = MakeStateTable(config.spec).bytes();
  if (!options.check_values) return;
  WeightSizer nowhere(DeviceKind::kCpu);
  const absl::Status status =
      LoadWeights(config, *tensors, false, &nowhere, &result->fingerprint).status();
  result->values_checked = status.ok();
  Refuse(status, result);
}

void InspectTokenizer(const std::string& dir, Inspection* result) {
  // Without a config, whose vocabulary bounds the ids, the file is still checked by itself.
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      result->config ? LoadModelTokenizer(dir, *result->config)
                     : Tokenizer::Load(dir, {.vocab_size = kMaxVocabSize});
  if (!tokenizer.ok()) return Refuse(tokenizer.status(), result);
  const Tokenizer& t = **tokenizer;
  result->tokenizer = Inspection::TokenizerFile{t.kind(), t.pieces(), t.bos_id(), t.eos_id()};
}

}  // namespace

Inspection InspectModel(const std::string& dir, const InspectOptions& options) {
  Inspection result;
  result.name = ModelName(dir);
  absl::StatusOr<ModelConfig> config = ReadModelConfig(dir, &result.refusals);
  if (config.ok()) result.config = *std::move(config);
  const absl::StatusOr<std::unique_ptr<WeightFiles>> files = WeightFiles::Open(dir);
  Refuse(files.status(), &result);
  if (files.ok()) {
    result.files = CountFiles(**files);
    if (result.config) InspectTensors(**files, options, &result);
  }
  InspectTokenizer(dir, &result);
  return result;
}

}  // namespace sluice
