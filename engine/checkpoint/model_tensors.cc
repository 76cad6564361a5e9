#include "engine/checkpoint/model_tensors.h"

#include <string>
#include <utility>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

absl::Status TensorError(absl::string_view file, absl::string_view tensor,
                         absl::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": tensor ", Printable(tensor), " ", message));
}

// Takes tensors out of the files one by one. The first error stays; what is returned after it is
// meaningless.
class Locator {
 public:
  explicit Locator(const WeightFiles& files) : files_(files) {}

  const absl::Status& status() const { return status_; }

  bool Has(absl::string_view name) const {
    return files_.tensors().find(name) != files_.tensors().end();
  }

  // Of a tensor that may not exist: then 0.
  int64_t Rows(absl::string_view name) const {
    const auto it = files_.tensors().find(name);
    return it == files_.tensors().end() || it->second.info->shape.empty()
               ? 0
               : it->second.info->shape[0];
  }

  ModelTensor Take(absl::string_view name, const std::vector<int64_t>& shape) {
    ModelTensor tensor;
    if (!status_.ok()) return tensor;
    const auto it = files_.tensors().find(name);
    if (it == files_.tensors().end()) {
      status_ = TensorError(files_.root(), name,
                            absl::StrCat("is missing, must have shape ", ShapeText(shape)));
      return tensor;
    }
    tensor.stored = it->second;
    const TensorInfo& info = *tensor.stored.info;
    if (info.shape != shape) {
      Refuse(tensor,
             absl::StrCat("has shape ", ShapeText(info.shape), ", must be ", ShapeText(shape)));
    } else if (info.dtype == "BF16") {
      tensor.dtype = DType::kBF16;
    } else if (info.dtype == "F16") {
      tensor.dtype = DType::kF16;
    } else if (info.dtype == "F32") {
      tensor.dtype = DType::kF32;
    } else {
      Refuse(tensor, absl::StrCat("has dtype ", info.dtype, ", must be BF16, F16 or F32"));
    }
    tensor.rows = shape.size() == 1 ? 1 : shape[0];
    tensor.cols = shape.back();
    taken_.insert(it->second.info);
    return tensor;
  }

  // What is left over would change the model's function if it were ignored (a bias, another kind of
  // layer).
  void RefuseRest() {
    if (!status_.ok() || taken_.size() == files_.tensors().size()) return;
    for (const auto& [name, tensor] : files_.tensors()) {
      if (taken_.contains(tensor.info)) continue;
      status_ = TensorError(tensor.file->name(), name,
                            "is not part of the model that config.json describes");
      return;
    }
  }

 private:
  void Refuse(const ModelTensor& tensor, absl::string_view message) {
    status_ = TensorError(tensor.stored.file->name(), *tensor.stored.name, message);
  }

  const WeightFiles& files_;
  absl::flat_hash_set<const TensorInfo*> taken_;
  absl::Status status_;
};

void LocateMixer(const ModelConfig& config, const std::string& prefix, Locator* locator,
                 LayerTensors* layer) {
  const ModelShape& s = config.shape;
  const auto take = [&](absl::string_view name, const std::vector<int64_t>& shape) {
    return locator->Take(absl::StrCat(prefix, name), shape);
  };
  layer->q_proj = take("q_proj.weight", {s.q_dim(), s.hidden});
  layer->k_proj = take("k_proj.weight", {s.k_dim(), s.hidden});
  layer->v_proj = take("v_proj.weight", {s.v_dim(), s.hidden});
  layer->gk_proj_0 = take("gk_proj.0.weight", {s.gate_rank, s.hidden});
  if (s.output_gate) layer->g_proj = take("g_proj.weight", {s.out_dim(), s.hidden});
  layer->gk_proj_1 = take("gk_proj.1.weight", {s.k_dim(), s.gate_rank});
  layer->gk_proj_1_bias = take("gk_proj.1.bias", {s.k_dim()});
  if (s.conv_size > 0) {
    layer->q_conv1d = take("q_conv1d.weight", {s.q_dim(), 1, s.conv_size});
    layer->k_conv1d = take("k_conv1d.weight", {s.k_dim(), 1, s.conv_size});
    layer->v_conv1d = take("v_conv1d.weight", {s.v_dim(), 1, s.conv_size});
  }
  if (config.head_norm_affine) {
    // The same weight under two names: which one depends on whether norm and gate were one kernel
    // in training.
    const bool fused = locator->Has(absl::StrCat(prefix, "g_norm_swish_gate.weight"));
    layer->head_norm = take(fused ? "g_norm_swish_gate.weight" : "g_norm.weight", {s.dv});
  }
  layer->o_proj = take("o_proj.weight", {s.hidden, s.out_dim()});
}

void LocateMlp(const ModelShape& s, const std::string& prefix, Locator* locator,
               LayerTensors* layer) {
  const std::string gate = absl::StrCat(prefix, "gate_proj.weight");
  const std::string up = absl::StrCat(prefix, "up_proj.weight");
  // Before February 2025 gate and up were one matrix.
  const bool fused = !locator->Has(up) && locator->Rows(gate) == 2 * s.intermediate;
  layer->gate_proj = locator->Take(gate, {fused ? 2 * s.intermediate : s.intermediate, s.hidden});
  if (!fused) layer->up_proj = locator->Take(up, {s.intermediate, s.hidden});
  layer->down_proj =
      locator->Take(absl::StrCat(prefix, "down_proj.weight"), {s.hidden, s.intermediate});
}

LayerTensors LocateLayer(const ModelConfig& config, int64_t index, Locator* locator) {
  const std::string prefix = absl::StrCat("model.layers.", index, ".");
  LayerTensors layer;
  layer.attn_norm = locator->Take(absl::StrCat(prefix, "attn_norm.weight"), {config.shape.hidden});
  LocateMixer(config, absl::StrCat(prefix, "attn."), locator, &layer);
  layer.mlp_norm = locator->Take(absl::StrCat(prefix, "mlp_norm.weight"), {config.shape.hidden});
  LocateMlp(config.shape, absl::StrCat(prefix, "mlp."), locator, &layer);
  return layer;
}

}  // namespace

absl::StatusOr<ModelTensors> LocateTensors(const ModelConfig& config, const WeightFiles& files) {
  const ModelShape& s = config.shape;
  Locator locator(files);
  ModelTensors tensors;
  tensors.embeddings = locator.Take("model.embeddings.weight", {s.vocab, s.hidden});
  for (int64_t i = 0; i < s.layers && locator.status().ok(); ++i) {
    tensors.layers.push_back(LocateLayer(config, i, &locator));
  }
  tensors.norm = locator.Take("model.norm.weight", {s.hidden});
  if (!config.tied || locator.Has("lm_head.weight")) {
    tensors.lm_head = locator.Take("lm_head.weight", {s.vocab, s.hidden});
  }
  locator.RefuseRest();
  if (!locator.status().ok()) return locator.status();
  return tensors;
}

}  // namespace sluice
