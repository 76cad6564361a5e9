#include "engine/checkpoint/tensor_table.h"

#include <set>

#include "absl/container/flat_hash_set.h"
#include "absl/status/status.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "engine/checkpoint/families.h"
#include "engine/checkpoint/json_text.h"

namespace sluice {
namespace {

absl::Status TensorError(absl::string_view file, absl::string_view tensor,
                         absl::string_view message) {
  return absl::InvalidArgumentError(
      absl::StrCat(file, ": tensor ", Printable(tensor), " ", message));
}

TensorTable MakeTable(const ModelConfig& config, const TensorSource& files) {
  TensorTable table;
  config.family->tensors(config, files, &table);
  return table;
}

// Finds a stored tensor for an entry that needs one.
absl::Status Locate(const WeightFiles& files, TableEntry* entry) {
  const auto& stored = files.tensors();
  auto it = stored.end();
  for (const std::string& name : entry->names) {
    it = stored.find(name);
    if (it != stored.end()) break;
  }
  if (it == stored.end()) {
    return TensorError(files.root(), entry->names.front(),
                       absl::StrCat("is missing, must have shape ", ShapeText(entry->shape)));
  }
  entry->stored = it->second;
  const TensorInfo& info = *entry->stored.info;
  const auto refuse = [&](absl::string_view message) {
    return TensorError(entry->stored.file->name(), *entry->stored.name, message);
  };
  if (info.shape != entry->shape) {
    return refuse(
        absl::StrCat("has shape ", ShapeText(info.shape), ", must be ", ShapeText(entry->shape)));
  }
  if (info.dtype == "BF16") {
    entry->dtype = DType::kBF16;
  } else if (info.dtype == "F16") {
    entry->dtype = DType::kF16;
  } else if (info.dtype == "F32") {
    entry->dtype = DType::kF32;
  } else {
    return refuse(absl::StrCat("has dtype ", info.dtype, ", must be BF16, F16 or F32"));
  }
  return absl::OkStatus();
}

// True for a tensor of a part that is not served.
bool TakeSkipped(absl::string_view name, const StoredTensor& tensor, TensorTable* table) {
  for (TensorTable::Skipped& part : table->skipped()) {
    if (!absl::StartsWith(name, part.prefix)) continue;
    ++part.tensors;
    part.bytes += tensor.bytes();
    return true;
  }
  return false;
}

// Collects refusals: the first as a status, and as many lines as a person reads.
class Refused {
 public:
  void Add(absl::Status status) {
    if (count_++ < kLines) lines_.push_back(std::move(status));
  }
  bool empty() const { return count_ == 0; }
  const absl::Status& first() const { return lines_.front(); }

  void AppendTo(std::vector<std::string>* refusals) const {
    for (const absl::Status& line : lines_) refusals->emplace_back(line.message());
    if (count_ > kLines) {
      refusals->push_back(absl::StrCat("and ", count_ - kLines, " more tensors like these"));
    }
  }

 private:
  static constexpr int64_t kLines = 12;
  std::vector<absl::Status> lines_;
  int64_t count_ = 0;
};

}  // namespace

Derive TakeRows(std::vector<RowRange> order, int64_t cols) {
  return [order = std::move(order), cols](std::vector<float> values) {
    std::vector<float> taken;
    for (const RowRange& range : order) {
      const auto begin = values.begin() + range.begin * cols;
      taken.insert(taken.end(), begin, begin + range.rows * cols);
    }
    return taken;
  };
}

Derive OnePlus() {
  return [](std::vector<float> values) {
    for (float& value : values) value += 1.0f;
    return values;
  };
}

int64_t TableEntry::elements() const {
  int64_t elements = 1;
  for (int64_t extent : shape) elements *= extent;
  return elements;
}

void TensorScope::Add(std::vector<std::string> names, std::vector<int64_t> shape, Into into) {
  AddDerived(std::move(names), std::move(shape), into, 0, nullptr);
}

void TensorScope::AddDerived(std::vector<std::string> names, std::vector<int64_t> shape, Into into,
                             int64_t derived, Derive derive) {
  TableEntry entry;
  for (std::string& name : names) entry.names.push_back(absl::StrCat(prefix_, name));
  entry.shape = std::move(shape);
  entry.layer = layer_;
  entry.branch = branch_;
  entry.unit = unit_;
  entry.into = into;
  entry.derive = std::move(derive);
  entry.derived = derived;
  table_->entries_.push_back(std::move(entry));
}

void TensorScope::AddRows(std::vector<std::string> names, std::vector<int64_t> shape, Into into,
                          std::vector<RowRange> order) {
  Add(std::move(names), std::move(shape), into);
  table_->entries_.back().order = std::move(order);
}

void TensorScope::Ignore(const std::string& name) {
  table_->ignored_.push_back(absl::StrCat(prefix_, name));
}

void TensorScope::AddValues(std::vector<float> values, Into into) {
  TableEntry entry;
  entry.shape = {static_cast<int64_t>(values.size())};
  entry.layer = layer_;
  entry.branch = branch_;
  entry.unit = unit_;
  entry.into = into;
  entry.values = std::move(values);
  table_->entries_.push_back(std::move(entry));
}

void TensorScope::AddRuns(std::vector<Run> runs, Into into) {
  AddValues({}, into);
  TableEntry& entry = table_->entries_.back();
  for (const Run& run : runs) entry.shape[0] += run.count;
  entry.runs = std::move(runs);
}

void TensorTable::Skip(std::string prefix, std::string what) {
  skipped_.push_back({std::move(prefix), std::move(what)});
}

std::vector<std::string> TensorTable::SkippedNotes() const {
  std::vector<std::string> notes;
  for (const Skipped& part : skipped_) {
    if (part.tensors == 0) continue;
    notes.push_back(absl::StrCat(part.what, " is not served: ", part.tensors,
                                 part.tensors == 1 ? " tensor" : " tensors", " under ", part.prefix,
                                 " (", part.bytes, " bytes) are not read"));
  }
  return notes;
}

TensorScope TensorTable::Outside(std::string prefix) { return Unit(0, 0, 0, std::move(prefix)); }

TensorScope TensorTable::Branch(int64_t layer, size_t branch, std::string prefix) {
  return Unit(layer, branch, 0, std::move(prefix));
}

TensorScope TensorTable::Unit(int64_t layer, size_t branch, size_t unit, std::string prefix) {
  TensorScope scope;
  scope.table_ = this;
  scope.prefix_ = std::move(prefix);
  scope.layer_ = layer;
  scope.branch_ = branch;
  scope.unit_ = unit;
  return scope;
}

const TensorInfo* TensorSource::Find(absl::string_view name) const {
  if (files_ == nullptr) return nullptr;
  const auto it = files_->tensors().find(name);
  return it == files_->tensors().end() ? nullptr : it->second.info;
}

int64_t TensorSource::Rows(absl::string_view name) const {
  const TensorInfo* info = Find(name);
  return info == nullptr || info->shape.empty() ? 0 : info->shape[0];
}

absl::StatusOr<TensorTable> LocateTensors(const ModelConfig& config, const WeightFiles& files,
                                          std::vector<std::string>* refusals) {
  TensorTable table = MakeTable(config, TensorSource(&files));
  absl::flat_hash_set<const TensorInfo*> taken;
  Refused refused;
  for (TableEntry& entry : table.entries()) {
    if (entry.names.empty()) continue;
    absl::Status status = Locate(files, &entry);
    if (!status.ok()) refused.Add(std::move(status));
    // A file may hold one name of tied tensors, or all.
    for (const std::string& name : entry.names) {
      const auto it = files.tensors().find(name);
      if (it != files.tensors().end()) taken.insert(it->second.info);
    }
  }
  for (const std::string& name : table.ignored()) {
    const auto it = files.tensors().find(name);
    if (it != files.tensors().end()) taken.insert(it->second.info);
  }
  // A tensor that is left over would change the model's function if it were ignored (a bias,
  // another kind of layer).
  for (const auto& [name, tensor] : files.tensors()) {
    if (taken.contains(tensor.info) || TakeSkipped(name, tensor, &table)) continue;
    refused.Add(TensorError(tensor.file->name(), name,
                            "is not part of the model that config.json describes"));
  }
  if (refused.empty()) return table;
  if (refusals != nullptr) refused.AppendTo(refusals);
  return refused.first();
}

int64_t CountParameters(const ModelConfig& config) {
  const TensorTable table = MakeTable(config, TensorSource());
  std::set<absl::string_view> seen;
  int64_t parameters = 0;
  for (const TableEntry& entry : table.entries()) {
    if (entry.names.empty() || !seen.insert(entry.names.front()).second) continue;
    parameters += entry.elements();
  }
  return parameters;
}

void ForEachTensor(const TensorTable& table, const std::function<void(const TableEntry&)>& visit) {
  absl::flat_hash_set<const TensorInfo*> seen;
  for (const TableEntry& entry : table.entries()) {
    if (!entry.names.empty() && seen.insert(entry.stored.info).second) visit(entry);
  }
}

}  // namespace sluice
