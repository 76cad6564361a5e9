// A device without arithmetic: a sequence's state is a hash of its tokens, and its next token a
// function of that hash and of the sampler's key. So any mistake of the engine in rows, slots,
// order or seeds changes tokens.
//
// It is as unhelpful as the interface allows: results reach host memory only when their ticket is
// done, tickets are done out of order, and memory that must stay untouched until then is checked.
#ifndef SLUICE_TESTS_FAKES_FAKE_BACKEND_H_
#define SLUICE_TESTS_FAKES_FAKE_BACKEND_H_

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <random>
#include <vector>

#include "absl/status/status.h"
#include "kernels/backend.h"

namespace sluice {

class FakeBackend : public Backend {
 public:
  struct Options {
    int32_t grid = 4;
    int32_t steps_in_flight = 2;
    uint64_t seed = 1;  // of the order in which tickets are done
  };

  explicit FakeBackend(const Options& options);

  // The fake model's answer: the token that follows `tokens`, for a sampler keyed so.
  static int32_t NextToken(const std::vector<int32_t>& tokens, int64_t vocab, uint64_t seed,
                           uint32_t sequence, uint64_t position);
  // The hash that stands for the state after `tokens`.
  static uint64_t HashOf(const std::vector<int32_t>& tokens);
  static float Logprob(const std::vector<int32_t>& tokens, int32_t next);

  // The n-th Await of a step from now on fails, and the device with it.
  void FailAfterSteps(int64_t steps) { steps_until_fault_ = steps; }
  // Called, on the driving thread, before each Await of a step: a device that hangs does not
  // return.
  void set_before_await(std::function<void()> hook) { before_await_ = std::move(hook); }
  // Rows whose state was reached through this token have logits that are not finite.
  void set_poison_token(int32_t token) { poison_token_ = token; }

  // The step begun last, until it was awaited.
  const StepRows& step() const { return *rows_; }
  int64_t steps() const { return steps_; }
  int64_t most_rows() const { return most_rows_; }

  const BackendInfo& info() const override { return info_; }
  absl::StatusOr<Linear> LoadLinear(absl::Span<const MatrixView>) override { return Linear(); }
  absl::StatusOr<Linear> LoadGateUp(const MatrixView&, const MatrixView&) override {
    return Linear();
  }
  absl::StatusOr<Vector> LoadVector(const MatrixView&) override { return Vector(); }
  absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) override {
    return Activation{nullptr, rows, cols};
  }
  absl::Status AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                              int32_t max_rows) override;
  int64_t SlotBytes(const ModelSpec& spec) const override { return MakeStateTable(spec).bytes(); }
  absl::StatusOr<int64_t> StateBudget(const ModelSpec&, int32_t) const override {
    return int64_t{1} << 30;
  }

  void BeginStep(const StepRows* rows) override { rows_ = rows; }
  void Embed(const EmbedArgs&) override {}
  void NormProject(const NormProjectArgs&) override {}
  void Mix(const MixArgs&) override {}
  void ProjectAdd(const ProjectAddArgs&) override {}
  void NormGateUp(const NormGateUpArgs&) override {}
  void Logits(const LogitsArgs&) override {}
  Ticket EndStep() override;

  Ticket ZeroState(int32_t slot) override;
  Ticket CopyState(int32_t from, int32_t to) override;
  Ticket ReadState(int32_t slot, void* host, int64_t tokens) override;
  Ticket WriteState(int32_t slot, const void* host, int64_t tokens) override;
  Ticket ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) override;

  absl::Status Await(Ticket ticket) override;
  bool Done(Ticket ticket) override;

 private:
  struct State {
    uint64_t hash = 0;
    uint32_t tokens = 0;
    uint32_t poisoned = 0;  // 1: as numbers, not finite
  };
  struct Slot {
    State state;
    int32_t last_sampled = -1;
    int64_t call_begin = -1;  // tokens of the state before the call in it; -1: nothing since a copy
  };

  Ticket Enqueue(std::function<void()> complete);
  void Complete(Ticket ticket);
  void Consume(Slot* slot, int32_t token);

  BackendInfo info_;
  std::mt19937_64 rng_;
  int64_t vocab_ = 0;
  int32_t max_rows_ = 0;
  std::vector<Slot> slots_;
  const StepRows* rows_ = nullptr;
  Ticket last_ticket_ = 0;
  std::map<Ticket, std::function<void()>> pending_;
  std::vector<Ticket> step_tickets_;
  int64_t steps_ = 0;
  int64_t most_rows_ = 0;
  int64_t steps_until_fault_ = -1;
  int32_t poison_token_ = -1;
  std::function<void()> before_await_;
  absl::Status fault_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAKE_BACKEND_H_
