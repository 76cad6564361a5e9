// A device that runs out of memory or breaks at a chosen call, over any backend.
//
// It breaks as a real one does: nobody is told at once. Work given to it from then on is not done,
// what was in flight stays as it is, Done says yes to everything, and the next Await tells.
#ifndef SLUICE_TESTS_FAKES_FAULT_BACKEND_H_
#define SLUICE_TESTS_FAKES_FAULT_BACKEND_H_

#include <cstdint>
#include <functional>
#include <utility>

#include "absl/status/status.h"
#include "kernels/backend.h"

namespace sluice {

class FaultBackend : public Backend {
 public:
  // `inner` outlives the object.
  explicit FaultBackend(Backend* inner) : inner_(inner) {}

  // The n-th call from now on that allocates (0: the next) finds no memory.
  void FailAllocation(int64_t n) { fail_allocation_ = allocations_ + n; }
  // The device breaks at the n-th call from now on that gives it work.
  void FailWork(int64_t n) { fail_work_ = work_ + n; }
  // Called once, when the fault is first told.
  void set_on_told(std::function<void()> on_told) { on_told_ = std::move(on_told); }

  bool failed() const { return failed_; }
  bool told() const { return told_; }
  int64_t allocations() const { return allocations_; }
  int64_t work() const { return work_; }
  // Work given to it by somebody who had been told.
  int64_t work_after_told() const { return work_after_told_; }

  const BackendInfo& info() const override { return inner_->info(); }

  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView> blocks) override {
    if (!HasMemory()) return NoMemory();
    return inner_->LoadLinear(blocks);
  }
  absl::StatusOr<Linear> LoadGateUp(const MatrixView& gate, const MatrixView& up) override {
    if (!HasMemory()) return NoMemory();
    return inner_->LoadGateUp(gate, up);
  }
  absl::StatusOr<Vector> LoadVector(const MatrixView& values) override {
    if (!HasMemory()) return NoMemory();
    return inner_->LoadVector(values);
  }
  absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) override {
    if (!HasMemory()) return NoMemory();
    return inner_->AllocateActivation(rows, cols);
  }
  absl::Status AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                              int32_t max_rows) override {
    if (!HasMemory()) return NoMemory();
    return inner_->AllocateStates(spec, slots, count_tables, max_rows);
  }
  void SetAttentionRoom(const AttentionRoom& room) override { inner_->SetAttentionRoom(room); }
  int64_t SlotBytes(const ModelSpec& spec) const override { return inner_->SlotBytes(spec); }
  int64_t PageBytes(const ModelSpec& spec) const override { return inner_->PageBytes(spec); }
  absl::StatusOr<int64_t> StateBudget(const ModelSpec& spec, int32_t max_rows) const override {
    return inner_->StateBudget(spec, max_rows);
  }

  void BeginStep(const StepRows* rows) override {
    if (Works()) inner_->BeginStep(rows);
  }
  void Embed(const EmbedArgs& args) override {
    if (Works()) inner_->Embed(args);
  }
  void NormProject(const NormProjectArgs& args) override {
    if (Works()) inner_->NormProject(args);
  }
  void Mix(const MixArgs& args) override {
    if (Works()) inner_->Mix(args);
  }
  void ProjectAdd(const ProjectAddArgs& args) override {
    if (Works()) inner_->ProjectAdd(args);
  }
  void NormGateUp(const NormGateUpArgs& args) override {
    if (Works()) inner_->NormGateUp(args);
  }
  void Logits(const LogitsArgs& args) override {
    if (Works()) inner_->Logits(args);
  }
  Ticket EndStep() override { return Works() ? Keep(inner_->EndStep()) : ++last_; }

  Ticket ZeroState(int32_t slot) override {
    return Works() ? Keep(inner_->ZeroState(slot)) : ++last_;
  }
  Ticket CopyState(int32_t from, int32_t to) override {
    return Works() ? Keep(inner_->CopyState(from, to)) : ++last_;
  }
  Ticket ReadState(int32_t slot, void* host, int64_t tokens) override {
    return Works() ? Keep(inner_->ReadState(slot, host, tokens)) : ++last_;
  }
  Ticket WriteState(int32_t slot, const void* host, int64_t tokens) override {
    return Works() ? Keep(inner_->WriteState(slot, host, tokens)) : ++last_;
  }
  void DropState(int32_t slot) override {
    if (!failed_) inner_->DropState(slot);  // no work: a note that the slot is free
  }
  PageCounts pages() const override { return inner_->pages(); }
  Ticket ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) override {
    return Works() ? Keep(inner_->ResetCounts(counts, prompt)) : ++last_;
  }

  absl::Status Await(Ticket ticket) override {
    if (!failed_) return inner_->Await(ticket);
    if (!std::exchange(told_, true) && on_told_) on_told_();
    return absl::InternalError("fault backend: the device is broken");
  }
  bool Done(Ticket ticket) override { return failed_ || inner_->Done(ticket); }

 private:
  static absl::Status NoMemory() {
    return absl::ResourceExhaustedError("fault backend: out of memory");
  }
  bool HasMemory() { return allocations_++ != fail_allocation_; }
  bool Works() {
    if (told_) ++work_after_told_;
    if (work_++ == fail_work_) failed_ = true;
    return !failed_;
  }
  Ticket Keep(Ticket ticket) { return last_ = ticket; }

  Backend* const inner_;
  std::function<void()> on_told_;
  int64_t allocations_ = 0;
  int64_t fail_allocation_ = -1;
  int64_t work_ = 0;
  int64_t fail_work_ = -1;
  int64_t work_after_told_ = 0;
  bool failed_ = false;
  bool told_ = false;
  Ticket last_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAULT_BACKEND_H_
