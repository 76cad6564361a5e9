// A backend that computes nothing and remembers what it was given to load.
#ifndef SLUICE_TESTS_ENGINE_CHECKPOINT_RECORDING_BACKEND_H_
#define SLUICE_TESTS_ENGINE_CHECKPOINT_RECORDING_BACKEND_H_

#include <cstdint>
#include <string>
#include <vector>

#include "kernels/backend.h"
#include "kernels/check.h"

namespace sluice {

class RecordingBackend : public Backend {
 public:
  struct Block {
    DType dtype;
    int64_t rows;
    int64_t cols;
    std::string bytes;
  };
  struct Load {
    enum Kind { kLinear, kGateUp, kVector } kind;
    std::vector<Block> blocks;
  };

  const std::vector<Load>& loads() const { return loads_; }
  // The values behind a handle that this backend gave; an empty vector has none.
  template <typename Handle>
  const Load& at(const Handle& handle) const {
    return loads_[reinterpret_cast<uintptr_t>(handle.data) - 1];
  }
  // The n-th load from now on fails.
  void FailAfter(int loads) { loads_until_failure_ = loads; }

  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) override {
    Linear linear{nullptr, blocks[0].dtype, 0, blocks[0].cols};
    for (const MatrixView& block : blocks) {
      SLUICE_CHECK(block.dtype == linear.dtype && block.cols == linear.k);
      linear.n += block.rows;
    }
    return Record<Linear>(Load::kLinear, blocks, linear);
  }
  absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) override {
    SLUICE_CHECK(gate.dtype == up.dtype && gate.rows == up.rows && gate.cols == up.cols);
    return Record<Linear>(Load::kGateUp, {gate, up},
                          {nullptr, gate.dtype, 2 * gate.rows, gate.cols});
  }
  absl::StatusOr<Vector> LoadVector(const MatrixView& values) override {
    return Record<Vector>(Load::kVector, {values}, {nullptr, values.rows * values.cols});
  }

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) override {
    return Activation{nullptr, rows, cols};
  }
  absl::Status AllocateStates(const ModelSpec&, int32_t, int32_t, int32_t) override {
    return absl::OkStatus();
  }
  absl::StatusOr<int64_t> StateBudget(const ModelSpec&, int32_t) const override { return 0; }
  int64_t SlotBytes(const ModelSpec& spec) const override { return MakeStateTable(spec).bytes(); }
  void BeginStep(const StepRows*) override {}
  void Embed(const EmbedArgs&) override {}
  void NormProject(const NormProjectArgs&) override {}
  void Mix(const MixArgs&) override {}
  void ProjectAdd(const ProjectAddArgs&) override {}
  void NormGateUp(const NormGateUpArgs&) override {}
  void Logits(const LogitsArgs&) override {}
  Ticket EndStep() override { return 0; }
  Ticket ZeroState(int32_t) override { return 0; }
  Ticket CopyState(int32_t, int32_t) override { return 0; }
  Ticket ReadState(int32_t, void*, int64_t) override { return 0; }
  Ticket WriteState(int32_t, const void*, int64_t) override { return 0; }
  Ticket ResetCounts(int32_t, absl::Span<const int32_t>) override { return 0; }
  absl::Status Await(Ticket) override { return absl::OkStatus(); }
  bool Done(Ticket) override { return true; }

 private:
  // Gives `handle` an address that is a number of the load.
  template <typename Handle>
  absl::StatusOr<Handle> Record(Load::Kind kind, absl::Span<const MatrixView> blocks,
                                Handle handle) {
    if (loads_until_failure_ >= 0 && loads_until_failure_-- == 0) {
      return absl::ResourceExhaustedError("no memory");
    }
    Load load{kind, {}};
    for (const MatrixView& block : blocks) {
      const auto* bytes = static_cast<const char*>(block.data);
      load.blocks.push_back(
          {block.dtype, block.rows, block.cols,
           std::string(bytes, block.rows * block.cols * DTypeBytes(block.dtype))});
    }
    loads_.push_back(std::move(load));
    handle.data = reinterpret_cast<decltype(handle.data)>(loads_.size());
    return handle;
  }

  BackendInfo info_;
  std::vector<Load> loads_;
  int loads_until_failure_ = -1;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_ENGINE_CHECKPOINT_RECORDING_BACKEND_H_
