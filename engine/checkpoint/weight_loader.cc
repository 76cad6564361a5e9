#include "engine/checkpoint/weight_loader.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/types/span.h"
#include "engine/checkpoint/json_text.h"
#include "engine/checkpoint/values.h"
#include "xxhash.h"

namespace sluice {
namespace {

using Digest = std::string;  // 16 bytes

Digest ToDigest(XXH128_hash_t hash) {
  XXH128_canonical_t bytes;
  XXH128_canonicalFromHash(&bytes, hash);
  return Digest(reinterpret_cast<const char*>(bytes.digest), sizeof(bytes.digest));
}

// Host memory for the tensors of one call to the store; grows to the largest such group and is
// used again.
class Buffer {
 public:
  absl::StatusOr<char*> Reserve(int64_t bytes) {
    if (bytes > capacity_) {
      memory_.reset();
      capacity_ = 0;
      const int64_t rounded = (bytes + kAlign - 1) / kAlign * kAlign;
      memory_.reset(static_cast<char*>(std::aligned_alloc(kAlign, rounded)));
      if (memory_ == nullptr) {
        return absl::ResourceExhaustedError(
            absl::StrCat("not enough memory to read weights: ", rounded, " bytes"));
      }
      capacity_ = rounded;
    }
    return memory_.get();
  }

  static constexpr int64_t kAlign = 64;

 private:
  struct Free {
    void operator()(char* memory) const { std::free(memory); }
  };
  std::unique_ptr<char, Free> memory_;
  int64_t capacity_ = 0;
};

enum class Values : uint8_t {
  kFinite,  // read and checked
  kAny,     // read
  kNone,    // not read
};

class Loader {
 public:
  Loader(Values values, WeightStore* store) : values_(values), store_(store) {}

  const absl::Status& status() const { return status_; }

  // The tensors one below the other.
  Linear Stack(absl::Span<const ModelTensor* const> tensors) {
    std::vector<MatrixView> views = Read(tensors);
    if (!status_.ok()) return {};
    return Keep(store_->LoadLinear(views));
  }

  Linear GateUp(const LayerTensors& layer, int64_t intermediate) {
    if (layer.up_proj) {
      const std::vector<MatrixView> views = Read({&layer.gate_proj, &*layer.up_proj});
      if (!status_.ok()) return {};
      return Keep(store_->LoadGateUp(views[0], views[1]));
    }
    const std::vector<MatrixView> views = Read({&layer.gate_proj});
    if (!status_.ok()) return {};
    MatrixView gate = views[0];
    gate.rows = intermediate;
    MatrixView up = gate;
    if (gate.data != nullptr) {
      up.data =
          static_cast<const char*>(gate.data) + gate.rows * gate.cols * DTypeBytes(gate.dtype);
    }
    return Keep(store_->LoadGateUp(gate, up));
  }

  Vector Floats(const ModelTensor& tensor) {
    const std::vector<MatrixView> views = Read({&tensor});
    if (!status_.ok()) return {};
    return Keep(store_->LoadVector(views[0]));
  }
  Vector Floats(const std::optional<ModelTensor>& tensor) {
    return tensor ? Floats(*tensor) : Vector();
  }

  // A tied model's lm_head that repeats the embeddings is the embeddings.
  Linear Head(const ModelTensors& tensors, bool tied, Linear embeddings) {
    if (!tensors.lm_head) return embeddings;
    const std::vector<MatrixView> views = Read({&*tensors.lm_head});
    if (!status_.ok()) return {};
    const bool same =
        values_ != Values::kNone && tensors.lm_head->dtype == tensors.embeddings.dtype &&
        digests_[*tensors.lm_head->stored.name] == digests_[*tensors.embeddings.stored.name];
    if (tied && same) return embeddings;
    return Keep(store_->LoadLinear(views));
  }

  // Of a tensor that has been read.
  const Digest& digest(const std::string& name) const { return digests_.at(name); }

 private:
  template <typename Handle>
  Handle Keep(absl::StatusOr<Handle> handle) {
    if (handle.ok()) return *handle;
    status_ = handle.status();
    return {};
  }

  // Reads the tensors into the buffer, all in one dtype: where theirs differ, in fp32, which holds
  // each exactly.
  std::vector<MatrixView> Read(absl::Span<const ModelTensor* const> tensors) {
    std::vector<MatrixView> views;
    if (!status_.ok()) return views;
    const DType first = tensors[0]->dtype;
    const bool mixed = std::any_of(tensors.begin(), tensors.end(),
                                   [&](const ModelTensor* t) { return t->dtype != first; });
    const DType dtype = mixed ? DType::kF32 : first;
    if (values_ == Values::kNone) {
      for (const ModelTensor* t : tensors) views.push_back({nullptr, dtype, t->rows, t->cols});
      return views;
    }
    std::vector<int64_t> offsets;
    int64_t bytes = 0;
    for (const ModelTensor* tensor : tensors) {
      offsets.push_back(bytes);
      bytes += (tensor->elements() * DTypeBytes(dtype) + Buffer::kAlign - 1) / Buffer::kAlign *
               Buffer::kAlign;
    }
    absl::StatusOr<char*> memory = buffer_.Reserve(bytes);
    status_ = memory.status();
    for (size_t i = 0; i < tensors.size() && status_.ok(); ++i) {
      const ModelTensor& tensor = *tensors[i];
      char* to = *memory + offsets[i];
      status_ = tensor.dtype == dtype ? ReadStored(tensor, to)
                                      : ReadAsF32(tensor, reinterpret_cast<float*>(to));
      views.push_back({to, dtype, tensor.rows, tensor.cols});
    }
    return views;
  }

  absl::Status ReadAsF32(const ModelTensor& tensor, float* to) {
    absl::StatusOr<char*> memory = narrow_.Reserve(tensor.stored.bytes());
    if (!memory.ok()) return memory.status();
    absl::Status status = ReadStored(tensor, *memory);
    if (status.ok()) ConvertToF32(*memory, tensor.dtype, tensor.elements(), to);
    return status;
  }

  absl::Status ReadStored(const ModelTensor& tensor, char* to) {
    const StoredTensor& stored = tensor.stored;
    absl::Status status = stored.file->Read(stored.info->begin, stored.bytes(), to);
    if (!status.ok()) {
      return absl::Status(
          status.code(), absl::StrCat(status.message(), " (tensor ", Printable(*stored.name), ")"));
    }
    if (values_ == Values::kFinite) {
      const int64_t bad = FirstNonFinite(to, tensor.dtype, tensor.elements());
      if (bad >= 0) {
        return absl::InvalidArgumentError(
            absl::StrCat(stored.file->name(), ": tensor ", Printable(*stored.name),
                         " holds a NaN or an infinity at element ", bad));
      }
    }
    digests_[*stored.name] = ToDigest(XXH3_128bits(to, stored.bytes()));
    return absl::OkStatus();
  }

  const Values values_;
  WeightStore* const store_;
  Buffer buffer_;
  Buffer narrow_;  // a tensor before its conversion
  std::map<std::string, Digest> digests_;
  absl::Status status_;
};

LayerWeights LoadLayer(const LayerTensors& layer, int64_t intermediate, Loader* loader) {
  LayerWeights weights;
  weights.attn_norm = loader->Floats(layer.attn_norm);
  std::vector<const ModelTensor*> mixer_in = {&layer.q_proj, &layer.k_proj, &layer.v_proj,
                                              &layer.gk_proj_0};
  if (layer.g_proj) mixer_in.push_back(&*layer.g_proj);
  weights.mixer_in = loader->Stack(mixer_in);
  weights.gate = loader->Stack({&layer.gk_proj_1});
  weights.gate_bias = loader->Floats(layer.gk_proj_1_bias);
  weights.conv_q = loader->Floats(layer.q_conv1d);
  weights.conv_k = loader->Floats(layer.k_conv1d);
  weights.conv_v = loader->Floats(layer.v_conv1d);
  weights.head_norm = loader->Floats(layer.head_norm);
  weights.mixer_out = loader->Stack({&layer.o_proj});
  weights.mlp_norm = loader->Floats(layer.mlp_norm);
  weights.gate_up = loader->GateUp(layer, intermediate);
  weights.down = loader->Stack({&layer.down_proj});
  return weights;
}

// Everything in the config that changes what the weights compute, in a form that does not depend on
// how the file spells it. Token ids are not in it: they do not change a state.
std::string NormalizedConfig(const ModelConfig& config) {
  const ModelShape& s = config.shape;
  return absl::StrCat("gla vocab=", s.vocab, " layers=", s.layers, " hidden=", s.hidden,
                      " heads=", s.heads, " kv_heads=", s.kv_heads, " dk=", s.dk, " dv=", s.dv,
                      " gate_rank=", s.gate_rank, " intermediate=", s.intermediate,
                      " conv_size=", s.conv_size, " feature_map=", static_cast<int>(s.feature_map),
                      " output_gate=", s.output_gate,
                      " log_gate_min=", s.clamp_log_gate ? absl::StrCat(s.log_gate_min) : "none",
                      " norm_eps=", s.norm_eps, " head_norm_affine=", config.head_norm_affine);
}

// Over the config and, in order of name, each tensor's name, dtype, shape and digest: the same for
// every way to split the same tensors into files.
std::string Fingerprint(const ModelConfig& config, const ModelTensors& tensors,
                        const Loader& loader) {
  std::map<std::string, std::string> lines;
  ForEachTensor(tensors, [&](const ModelTensor& tensor) {
    const StoredTensor& stored = tensor.stored;
    lines[*stored.name] = absl::StrCat(stored.info->dtype, ShapeText(stored.info->shape),
                                       loader.digest(*stored.name));
  });
  std::string text = NormalizedConfig(config);
  for (const auto& [name, line] : lines) absl::StrAppend(&text, "\n", name, " ", line);
  return absl::BytesToHexString(ToDigest(XXH3_128bits(text.data(), text.size())));
}

absl::StatusOr<Weights> LoadAll(const ModelConfig& config, const ModelTensors& tensors,
                                Loader* loader) {
  Weights weights;
  weights.embeddings = loader->Stack({&tensors.embeddings});
  for (const LayerTensors& layer : tensors.layers) {
    weights.layers.push_back(LoadLayer(layer, config.shape.intermediate, loader));
    if (!loader->status().ok()) return loader->status();
  }
  weights.norm = loader->Floats(tensors.norm);
  weights.lm_head = loader->Head(tensors, config.tied, weights.embeddings);
  if (!loader->status().ok()) return loader->status();
  return weights;
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, const ModelTensors& tensors,
                                    bool allow_nonfinite, WeightStore* store,
                                    std::string* fingerprint) {
  Loader loader(allow_nonfinite ? Values::kAny : Values::kFinite, store);
  absl::StatusOr<Weights> weights = LoadAll(config, tensors, &loader);
  if (weights.ok()) *fingerprint = Fingerprint(config, tensors, loader);
  return weights;
}

absl::Status MeasureWeights(const ModelConfig& config, const ModelTensors& tensors,
                            WeightStore* store) {
  Loader loader(Values::kNone, store);
  return LoadAll(config, tensors, &loader).status();
}

}  // namespace sluice
