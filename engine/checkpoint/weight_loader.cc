#include "engine/checkpoint/weight_loader.h"

#include <algorithm>
#include <cstdint>
#include <cstdlib>
#include <map>
#include <memory>
#include <type_traits>
#include <utility>
#include <variant>
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

std::vector<float> Expand(const std::vector<Run>& runs) {
  std::vector<float> values;
  for (const Run& run : runs) values.insert(values.end(), run.count, run.value);
  return values;
}

// Tensors that are loaded together: entries of one place, stacked along rows.
using Group = absl::Span<const TableEntry* const>;

class Loader {
 public:
  Loader(Values values, WeightStore* store) : values_(values), store_(store) {}

  const absl::Status& status() const { return status_; }

  // The tensors one below the other.
  Linear Stack(Group group) {
    const std::vector<MatrixView> read = Read(group);
    if (!status_.ok()) return {};
    std::vector<MatrixView> views;
    for (size_t i = 0; i < group.size(); ++i) AppendRows(*group[i], read[i], &views);
    return Keep(store_->LoadLinear(views));
  }

  // Gate and up, or one tensor of both.
  Linear GateUp(Group group) {
    const std::vector<MatrixView> views = Read(group);
    if (!status_.ok()) return {};
    if (views.size() == 2) return Keep(store_->LoadGateUp(views[0], views[1]));
    MatrixView gate = views[0];
    gate.rows /= 2;
    MatrixView up = gate;
    if (gate.data != nullptr) {
      up.data =
          static_cast<const char*>(gate.data) + gate.rows * gate.cols * DTypeBytes(gate.dtype);
    }
    return Keep(store_->LoadGateUp(gate, up));
  }

  Vector Floats(const TableEntry& entry) {
    if (!entry.runs.empty()) return Values32(Expand(entry.runs));
    if (entry.names.empty()) return Values32(entry.values);
    const std::vector<MatrixView> views = Read({&entry});
    if (!status_.ok()) return {};
    if (entry.derive == nullptr) return Keep(store_->LoadVector(views[0]));
    return Values32(ValuesOf(entry, views[0]));
  }

  // Vectors one behind the other.
  Vector Join(Group group) {
    if (group.size() == 1) return Floats(*group[0]);
    const std::vector<MatrixView> views = Read(group);
    if (!status_.ok()) return {};
    std::vector<float> values;
    for (size_t i = 0; i < views.size(); ++i) {
      const std::vector<float> part = ValuesOf(*group[i], views[i]);
      values.insert(values.end(), part.begin(), part.end());
    }
    return Values32(values);
  }

  // The head of a tied model whose file repeats the embeddings is the embeddings.
  bool RepeatsEmbeddings(const TableEntry& head, const TableEntry& embeddings) {
    Read({&head});
    return status_.ok() && values_ != Values::kNone && head.dtype == embeddings.dtype &&
           digests_[*head.stored.name] == digests_[*embeddings.stored.name];
  }

  // The digest of a tensor that has been read.
  const Digest& digest(const std::string& name) const { return digests_.at(name); }

 private:
  template <typename Handle>
  Handle Keep(absl::StatusOr<Handle> handle) {
    if (handle.ok()) return *handle;
    status_ = handle.status();
    return {};
  }

  // A vector's values, or zeros where nothing is read.
  std::vector<float> ValuesOf(const TableEntry& entry, const MatrixView& view) const {
    if (view.data == nullptr) {
      return std::vector<float>(entry.derive == nullptr ? entry.elements() : entry.derived);
    }
    std::vector<float> values(entry.elements());
    ConvertToF32(view.data, view.dtype, entry.elements(), values.data());
    return entry.derive == nullptr ? values : entry.derive(std::move(values));
  }

  // The rows of a tensor that a Linear has.
  static void AppendRows(const TableEntry& entry, const MatrixView& all,
                         std::vector<MatrixView>* views) {
    if (entry.order.empty()) return views->push_back(all);
    for (const RowRange& range : entry.order) {
      MatrixView view = all;
      view.rows = range.rows;
      if (all.data != nullptr) {
        view.data =
            static_cast<const char*>(all.data) + range.begin * all.cols * DTypeBytes(all.dtype);
      }
      views->push_back(view);
    }
  }

  Vector Values32(const std::vector<float>& values) {
    return Keep(
        store_->LoadVector({values.data(), DType::kF32, 1, static_cast<int64_t>(values.size())}));
  }

  // Reads the tensors into the buffer, all in one dtype: where theirs differ, in fp32, which holds
  // each exactly.
  std::vector<MatrixView> Read(Group group) {
    std::vector<MatrixView> views;
    if (!status_.ok()) return views;
    const DType first = group[0]->dtype;
    const bool mixed = std::any_of(group.begin(), group.end(),
                                   [&](const TableEntry* t) { return t->dtype != first; });
    const DType dtype = mixed ? DType::kF32 : first;
    if (values_ == Values::kNone) {
      for (const TableEntry* t : group) views.push_back({nullptr, dtype, t->rows(), t->cols()});
      return views;
    }
    std::vector<int64_t> offsets;
    int64_t bytes = 0;
    for (const TableEntry* entry : group) {
      offsets.push_back(bytes);
      bytes += (entry->elements() * DTypeBytes(dtype) + Buffer::kAlign - 1) / Buffer::kAlign *
               Buffer::kAlign;
    }
    absl::StatusOr<char*> memory = buffer_.Reserve(bytes);
    status_ = memory.status();
    for (size_t i = 0; i < group.size() && status_.ok(); ++i) {
      const TableEntry& entry = *group[i];
      char* to = *memory + offsets[i];
      status_ = entry.dtype == dtype ? ReadStored(entry, to)
                                     : ReadAsF32(entry, reinterpret_cast<float*>(to));
      views.push_back({to, dtype, entry.rows(), entry.cols()});
    }
    return views;
  }

  absl::Status ReadAsF32(const TableEntry& entry, float* to) {
    absl::StatusOr<char*> memory = narrow_.Reserve(entry.stored.bytes());
    if (!memory.ok()) return memory.status();
    absl::Status status = ReadStored(entry, *memory);
    if (status.ok()) ConvertToF32(*memory, entry.dtype, entry.elements(), to);
    return status;
  }

  absl::Status ReadStored(const TableEntry& entry, char* to) {
    const StoredTensor& stored = entry.stored;
    absl::Status status = stored.file->Read(stored.info->begin, stored.bytes(), to);
    if (!status.ok()) {
      return absl::Status(
          status.code(), absl::StrCat(status.message(), " (tensor ", Printable(*stored.name), ")"));
    }
    if (values_ == Values::kFinite) {
      const int64_t bad = FirstNonFinite(to, entry.dtype, entry.elements());
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

// The weights' handle that `entry` is for, which is a T of one of the structs that Into names.
template <typename T>
T* HandleOf(const TableEntry& entry, Weights* weights) {
  const auto branch = [&]() -> BranchWeights& {
    return weights->layers[entry.layer].branches[entry.branch];
  };
  const auto find = [&](auto member) -> T* {
    using Member = decltype(member);
    if constexpr (std::is_same_v<Member, T Weights::*>) {
      return &(weights->*member);
    } else if constexpr (std::is_same_v<Member, T BranchWeights::*>) {
      return &(branch().*member);
    } else if constexpr (std::is_same_v<Member, T MixerWeights::*>) {
      return &(std::get<MixerWeights>(branch().units[entry.unit]).*member);
    } else if constexpr (std::is_same_v<Member, T MlpWeights::*>) {
      return &(std::get<MlpWeights>(branch().units[entry.unit]).*member);
    } else {
      return nullptr;
    }
  };
  return std::visit(find, entry.into);
}

void LoadGroup(Group group, Loader* loader, Weights* weights) {
  const TableEntry& first = *group[0];
  if (Vector* vector = HandleOf<Vector>(first, weights)) {
    *vector = loader->Join(group);
  } else if (first.into == Into(&MlpWeights::gate_up)) {
    *HandleOf<Linear>(first, weights) = loader->GateUp(group);
  } else {
    *HandleOf<Linear>(first, weights) = loader->Stack(group);
  }
}

absl::StatusOr<Weights> LoadAll(const ModelConfig& config, const TensorTable& table,
                                Loader* loader) {
  Weights weights = EmptyWeights(config.spec);
  const TensorTable::Entries& entries = table.entries();
  const TableEntry* embeddings = nullptr;
  bool own_head = false;
  for (auto it = entries.begin(); it != entries.end();) {
    const TableEntry& first = *it;
    std::vector<const TableEntry*> group;
    for (; it != entries.end() && first.SamePlace(*it); ++it) group.push_back(&*it);
    if (first.into == Into(&Weights::embeddings)) embeddings = &first;
    if (first.into == Into(&Weights::lm_head)) {
      own_head = !(config.tied && loader->RepeatsEmbeddings(first, *embeddings));
      if (!own_head) continue;
    }
    LoadGroup(group, loader, &weights);
    if (!loader->status().ok()) return loader->status();
  }
  if (!own_head) weights.lm_head = weights.embeddings;
  if (!loader->status().ok()) return loader->status();
  return weights;
}

// Over the config and, in order of name, each tensor's name, dtype, shape and digest: the same for
// every way to split the same tensors into files.
std::string Fingerprint(const ModelConfig& config, const TensorTable& table, const Loader& loader) {
  std::map<std::string, std::string> lines;
  ForEachTensor(table, [&](const TableEntry& entry) {
    const StoredTensor& stored = entry.stored;
    lines[*stored.name] = absl::StrCat(stored.info->dtype, ShapeText(stored.info->shape),
                                       loader.digest(*stored.name));
  });
  std::string text = config.identity;
  for (const auto& [name, line] : lines) absl::StrAppend(&text, "\n", name, " ", line);
  return absl::BytesToHexString(ToDigest(XXH3_128bits(text.data(), text.size())));
}

}  // namespace

absl::StatusOr<Weights> LoadWeights(const ModelConfig& config, const TensorTable& table,
                                    bool allow_nonfinite, WeightStore* store,
                                    std::string* fingerprint) {
  Loader loader(allow_nonfinite ? Values::kAny : Values::kFinite, store);
  absl::StatusOr<Weights> weights = LoadAll(config, table, &loader);
  if (weights.ok()) *fingerprint = Fingerprint(config, table, loader);
  return weights;
}

absl::Status MeasureWeights(const ModelConfig& config, const TensorTable& table,
                            WeightStore* store) {
  Loader loader(Values::kNone, store);
  return LoadAll(config, table, &loader).status();
}

}  // namespace sluice
