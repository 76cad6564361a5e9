// The tensors of a model, as one table: what each is called and shaped, and where it goes in the
// weights. Locating, loading, counting, hashing and inspecting walk it.
#ifndef SLUICE_ENGINE_CHECKPOINT_TENSOR_TABLE_H_
#define SLUICE_ENGINE_CHECKPOINT_TENSOR_TABLE_H_

#include <cstdint>
#include <functional>
#include <list>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/checkpoint/config.h"
#include "engine/checkpoint/weight_files.h"
#include "engine/weights.h"

namespace sluice {

// A place in the weights. Tensors of one Linear or Vector that follow each other are stacked along
// rows;
// MlpWeights::gate_up takes gate and up, or one tensor of both, gate first.
using Into = std::variant<Linear Weights::*, Vector Weights::*, Vector BranchWeights::*,
                          Linear MixerWeights::*, Vector MixerWeights::*, Linear MlpWeights::*,
                          Vector MlpWeights::*>;

// Rows [begin, begin + rows) of a tensor.
struct RowRange {
  int64_t begin = 0;
  int64_t rows = 0;
};

// `count` equal values that follow each other.
struct Run {
  int64_t count = 0;
  float value = 0.0f;
};

// Makes a Vector's values out of a tensor's.
using Derive = std::function<std::vector<float>(std::vector<float>)>;
// The rows of a table of `cols` columns in another order, or some of them.
Derive TakeRows(std::vector<RowRange> order, int64_t cols);
// 1 + w of a norm's w, for files that hold that (zero-centred norms).
Derive OnePlus();

struct TableEntry {
  std::vector<std::string> names;  // the first that the files have; empty: `values` are it
  std::vector<int64_t> shape;
  int64_t layer = 0;  // of `into`, where it is in a layer
  size_t branch = 0;
  size_t unit = 0;
  Into into;
  std::vector<RowRange> order;  // of a Linear: its rows are these; empty: the tensor's as they are
  Derive derive;                // null: the values are the tensor's; else of a Vector
  int64_t derived = 0;          // how many values `derive` makes
  std::vector<float> values;    // computed, of a Vector
  std::vector<Run> runs;        // the same, where it is long
  // Set by LocateTensors:
  StoredTensor stored;
  DType dtype = DType::kF32;

  int64_t rows() const { return shape.size() == 1 ? 1 : shape[0]; }
  int64_t cols() const { return shape.back(); }
  int64_t elements() const;
  bool SamePlace(const TableEntry& other) const {
    return into == other.into && layer == other.layer && branch == other.branch &&
           unit == other.unit;
  }
};

class TensorTable;

// Adds the tensors of one place of the model, whose names begin alike.
class TensorScope {
 public:
  // Any one of `names` (the first that the files have), behind the scope's prefix.
  void Add(std::vector<std::string> names, std::vector<int64_t> shape, Into into);
  // Adds a tensor of whose values `derive` makes `derived` others.
  void AddDerived(std::vector<std::string> names, std::vector<int64_t> shape, Into into,
                  int64_t derived, Derive derive);
  // Adds a tensor of whose rows a Linear has these, in this order.
  void AddRows(std::vector<std::string> names, std::vector<int64_t> shape, Into into,
               std::vector<RowRange> order);
  // Adds a tensor that files may have and that changes nothing: it is not read.
  void Ignore(const std::string& name);
  // A vector that no file has.
  void AddValues(std::vector<float> values, Into into);
  // The same of few different values: a table does not grow with their number.
  void AddRuns(std::vector<Run> runs, Into into);

 private:
  friend class TensorTable;
  TensorTable* table_ = nullptr;
  std::string prefix_;
  int64_t layer_ = 0;
  size_t branch_ = 0;
  size_t unit_ = 0;
};

class TensorTable {
 public:
  // Outside of the layers: Weights.
  TensorScope Outside(std::string prefix = "");
  // BranchWeights of a layer's branch.
  TensorScope Branch(int64_t layer, size_t branch, std::string prefix);
  // MixerWeights or MlpWeights of a branch's unit.
  TensorScope Unit(int64_t layer, size_t branch, size_t unit, std::string prefix);

  // Tensors whose names begin so are no part of what is served: `what` says what they are.
  void Skip(std::string prefix, std::string what);

  // A node at a time: no allocation grows with a number that a config states.
  using Entries = std::list<TableEntry>;
  const Entries& entries() const { return entries_; }
  Entries& entries() { return entries_; }
  // Names of tensors that are no part of the model and may be there.
  const std::list<std::string>& ignored() const { return ignored_; }

  struct Skipped {
    std::string prefix;
    std::string what;
    // Set by LocateTensors: what the files have of it.
    int64_t tensors = 0;
    int64_t bytes = 0;
  };
  std::list<Skipped>& skipped() { return skipped_; }
  // A line for each part that the files have and that is not served.
  std::vector<std::string> SkippedNotes() const;

 private:
  friend class TensorScope;
  Entries entries_;
  std::list<std::string> ignored_;
  std::list<Skipped> skipped_;
};

// Knows how files spell a model's tensors. A source without files says that nothing is there.
class TensorSource {
 public:
  TensorSource() = default;
  explicit TensorSource(const WeightFiles* files) : files_(files) {}

  bool Has(absl::string_view name) const { return Find(name) != nullptr; }
  // Null when there is no such tensor.
  const TensorInfo* Find(absl::string_view name) const;
  // 0 for a tensor that is not there.
  int64_t Rows(absl::string_view name) const;

 private:
  const WeightFiles* files_ = nullptr;
};

// The table with every tensor located. INVALID_ARGUMENT names file, tensor, what was found and what
// must be: for one that is missing, has another shape or dtype, or is no part of this model. A tied
// model may have an lm_head (transformers 5 uses it, too). `refusals` gets a line for each of the
// first of them, and one that counts the others.
absl::StatusOr<TensorTable> LocateTensors(const ModelConfig& config, const WeightFiles& files,
                                          std::vector<std::string>* refusals = nullptr);

// Parameters of a model with this config, before its files are known.
int64_t CountParameters(const ModelConfig& config);

// Calls `visit(const TableEntry&)` once for each tensor of the files, in the table's order.
void ForEachTensor(const TensorTable& table, const std::function<void(const TableEntry&)>& visit);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_TENSOR_TABLE_H_
