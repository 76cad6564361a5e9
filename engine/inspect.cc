#include "engine/inspect.h"

#include <algorithm>
#include <memory>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
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

std::string DescribeMixer(const MixerSpec& m) {
  if (m.core == Core::kSoftmax) {
    if (m.window == 0) return "softmax attention over all tokens";
    return absl::StrCat("softmax attention over a window of ", m.window, " tokens");
  }
  if (m.core == Core::kShortConv) {
    return absl::StrCat("a gated short convolution of ", m.conv.taps, " taps");
  }
  constexpr const char* kDecays[] = {"no decay", "a constant decay per head",
                                     "a decay per head and token", "a decay per key and token"};
  std::string text = m.core == Core::kDelta ? "the delta rule, " : "";
  text += kDecays[static_cast<int>(m.decay)];
  if (m.rope == Rope::kHalves) text += ", rotary positions";
  if (m.rope == Rope::kLrpe) text += ", LRPE positions";
  if (m.conv.taps > 0) text += ", short convolutions";
  if (m.normaliser) text += ", a normaliser";
  if (m.gate == GateMap::kLightNet) text += ", a log sum";
  if (m.skip != Skip::kNone) text += ", a skip";
  return text;
}

// Multiply-adds of the matrices, and of the state, which is decayed, updated and read; the delta
// rule also reads it by its key.
// What softmax layers read depends on the position, and is left out.
int64_t MixerCost(const MixerSpec& m, int64_t hidden) {
  if (m.core == Core::kSoftmax) return (m.in_dim + m.out_dim()) * hidden;
  if (m.core == Core::kShortConv) return (m.in_dim + m.out_dim()) * hidden + m.conv.taps * m.dv;
  const int64_t state = m.state_heads * m.dk * m.dv;
  const int64_t read = m.heads() * m.dk * m.dv;
  int64_t gates = m.low_rank_gate ? m.out_gate.width * m.out_dim() : 0;
  const bool kda = m.gate == GateMap::kKda || m.gate == GateMap::kKdaBounded;
  if (kda || (m.gate == GateMap::kGla && m.decay == Decay::kKey)) {
    gates += m.gate_in.width * m.state_heads * m.dk;
  }
  return (m.in_dim + m.out_dim()) * hidden + gates + (m.core == Core::kDelta ? 3 : 2) * state +
         read;
}

std::vector<Inspection::Layers> DescribeLayers(const ModelSpec& spec) {
  std::vector<Inspection::Layers> kinds;
  const StateTable table = MakeStateTable(spec);
  for (size_t i = 0; i < spec.layers.size(); ++i) {
    Inspection::Layers layer;
    layer.count = 1;
    for (const StatePart& part : table.parts()) {
      if (part.layer != static_cast<int32_t>(i)) continue;
      (part.per_token ? layer.token_bytes : layer.state_bytes) += part.bytes();
    }
    for (const BranchSpec& branch : spec.layers[i].branches) {
      for (const UnitSpec& unit : branch.units) {
        if (const auto* mixer = std::get_if<MixerSpec>(&unit)) {
          absl::StrAppend(&layer.mixer, layer.mixer.empty() ? "" : "; beside it ",
                          DescribeMixer(*mixer));
          layer.multiply_adds += MixerCost(*mixer, spec.hidden);
        } else {
          const auto& mlp = std::get<MlpSpec>(unit);
          layer.multiply_adds += (mlp.gated ? 3 : 2) * mlp.intermediate * spec.hidden;
        }
      }
    }
    if (layer.mixer.empty()) layer.mixer = "an MLP alone";
    const auto alike = std::find_if(kinds.begin(), kinds.end(), [&](const auto& kind) {
      return kind.mixer == layer.mixer && kind.state_bytes == layer.state_bytes &&
             kind.token_bytes == layer.token_bytes && kind.multiply_adds == layer.multiply_adds;
    });
    if (alike == kinds.end()) {
      kinds.push_back(std::move(layer));
    } else {
      ++alike->count;
    }
  }
  return kinds;
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
  const absl::StatusOr<TensorTable> tensors =
      LocateTensors(*result->config, files, &result->refusals);
  if (!tensors.ok()) return;
  for (std::string& note : tensors->SkippedNotes()) {
    result->config->notes.push_back(std::move(note));
  }
  const ModelConfig& config = *result->config;
  Inspection::Layout layout;
  int64_t gate_up = 0, mlps = 0;
  for (const TableEntry& entry : tensors->entries()) {
    if (entry.into == Into(&MlpWeights::gate_up)) ++gate_up;
    if (entry.into == Into(&Weights::lm_head)) layout.has_lm_head = true;
  }
  ForEachMlp(config.spec, [&](int64_t, const MlpSpec& mlp) { mlps += mlp.gated ? 1 : 0; });
  layout.fused_gate_up = gate_up < 2 * mlps;
  result->layout = layout;
  result->devices = {Measure(DeviceKind::kCpu, config, *tensors),
                     Measure(DeviceKind::kCuda, config, *tensors)};
  const StateTable table = MakeStateTable(config.spec);
  result->state_bytes = table.bytes();
  result->token_bytes = table.token_bytes();
  if (!options.check_values) return;
  WeightSizer nowhere(DeviceKind::kCpu);
  const absl::Status status =
      LoadWeights(config, *tensors, false, &nowhere, &result->fingerprint).status();
  result->values_checked = status.ok();
  Refuse(status, result);
}

ModelConfig AnyVocabulary() {
  ModelConfig config;
  config.spec.vocab = kMaxVocabSize;
  return config;
}

void InspectTokenizer(const std::string& dir, const std::string& choice, Inspection* result) {
  // Without a config, whose vocabulary bounds the ids, the file is still checked by itself.
  absl::StatusOr<std::unique_ptr<const Tokenizer>> tokenizer =
      LoadModelTokenizer(dir, result->config.value_or(AnyVocabulary()), choice);
  if (absl::IsNotFound(tokenizer.status()) && choice.empty()) {
    return Refuse(absl::NotFoundError(absl::StrCat(tokenizer.status().message(),
                                                   "; see --tokenizer=DIR and --tokenizer=none")),
                  result);
  }
  if (!tokenizer.ok()) return Refuse(tokenizer.status(), result);
  const Tokenizer& t = **tokenizer;
  if (std::string note = TokenizerNote(t); result->config && !note.empty()) {
    result->config->notes.push_back(std::move(note));
  }
  result->tokenizer = Inspection::TokenizerFile{t.kind(), t.pieces(), t.bos_id(), t.eos_id()};
}

}  // namespace

Inspection InspectModel(const std::string& dir, const InspectOptions& options) {
  Inspection result;
  result.name = ModelName(dir);
  absl::StatusOr<ModelConfig> config = ReadModelConfig(dir, &result.refusals);
  if (config.ok()) {
    result.config = *std::move(config);
    result.layers = DescribeLayers(result.config->spec);
  }
  const absl::StatusOr<std::unique_ptr<WeightFiles>> files = WeightFiles::Open(dir);
  Refuse(files.status(), &result);
  if (files.ok()) {
    result.files = CountFiles(**files);
    if (result.config) InspectTensors(**files, options, &result);
  }
  InspectTokenizer(dir, options.tokenizer, &result);
  return result;
}

}  // namespace sluice
