// The seam between the engine and a device: memory, about a dozen ops, and steps that are launched
// now and awaited later. The only header of kernels/ that engine/ includes for computing.
//
// A step is BeginStep, the ops in model order, EndStep; then Await. Ops run in the order they are
// called; a later step sees what an earlier one wrote, also while neither has been awaited. State
// copies are ordered with the steps around them. Results (StepRows::results, ReadState's target)
// are in host memory only after Await. Copies from and to host memory go on beside steps that do
// not touch their slot, so their tickets may be done later than tickets that are younger.
//
// A row's results are a function of that row's own sequence: never of the other rows, of how many
// there are, or of how a prompt was cut on the grid. Decode rows and prompt rows may use different
// orders of summation, and so may prompts of different lengths.
//
// States of softmax layers without a window grow with their tokens. What they hold for each token
// is in pages of kPageTokens tokens (state_table.h), which slots share once full: a copy of a state
// takes at most one page. A step takes the pages that its rows need, and whoever forms it sees to
// it that there are enough.
//
// Threads: one thread drives a backend. Errors of the device latch: once a call has returned one,
// every later call returns it too and touches the device no more.
#ifndef SLUICE_KERNELS_BACKEND_H_
#define SLUICE_KERNELS_BACKEND_H_

#include <cstdint>
#include <string>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/types/span.h"
#include "kernels/cores.h"
#include "kernels/ops.h"
#include "kernels/saturated.h"
#include "kernels/state_table.h"
#include "kernels/step_rows.h"
#include "kernels/weight_store.h"

namespace sluice {

// Work that was enqueued. Steps are done in their order.
using Ticket = uint64_t;

struct BackendInfo {
  DeviceKind kind = DeviceKind::kCpu;
  std::string device;  // for people: "cpu (AVX3_ZEN4, 2 threads)"
  // These two depend on the model's cores (kernels/cores.h) and are set by AllocateStates.
  std::string numerics_id;      // equal ids give equal bits
  int32_t prompt_grid = 0;      // tokens; a prompt may be cut at its multiples only
  int32_t steps_in_flight = 1;  // how many steps are worth launching before the first is awaited
  int32_t default_slots = 64;   // sequences at once, where nobody says and memory allows
  int32_t default_batch_tokens = 512;  // rows of a step, where nobody says
  std::string weight_dtype;  // "bf16": what every checkpoint's weights become; empty: they stay
};

struct PageCounts {
  int64_t total = 0;
  int64_t free = 0;
  int64_t shared = 0;  // that more than one slot has
};

class Backend : public WeightStore {
 public:
  virtual const BackendInfo& info() const = 0;

  // ---- Start-up: everything is allocated here and by WeightStore's functions, nothing later.
  // RESOURCE_EXHAUSTED when memory is short. ----

  virtual absl::StatusOr<Activation> AllocateActivation(int64_t rows, int64_t cols) = 0;
  // Before AllocateStates, for a model whose states grow: what its slots may take.
  virtual void SetAttentionRoom(const AttentionRoom&) {}
  // Once: `slots` states, and `count_tables` tables of token counts. Fixes the model and the
  // largest step: it has at most max_rows + slots logit rows. INVALID_ARGUMENT: as CheckSpec.
  virtual absl::Status AllocateStates(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                                      int32_t max_rows) = 0;
  // Bytes a slot takes on the device without pages, for sizing before AllocateStates.
  virtual int64_t SlotBytes(const ModelSpec& spec) const = 0;
  // Bytes of a page; 0: the model's states do not grow.
  virtual int64_t PageBytes(const ModelSpec& spec) const {
    return SaturatedProduct(kPageTokens, MakeStateTable(spec).token_bytes());
  }
  // Bytes that slots may take where nobody says: of a device's own memory what is free now that
  // weights and activations are there, less what AllocateStates takes besides; of the host's, a
  // share.
  virtual absl::StatusOr<int64_t> StateBudget(const ModelSpec& spec, int32_t max_rows) const = 0;

  // ---- A step. `rows` and what it points to stay untouched until the step is awaited. One without
  // rows computes nothing, and what is otherwise made when first used is made then. ----

  virtual void BeginStep(const StepRows* rows) = 0;
  virtual void Embed(const EmbedArgs& args) = 0;
  virtual void NormProject(const NormProjectArgs& args) = 0;
  virtual void Mix(const MixArgs& args) = 0;
  virtual void ProjectAdd(const ProjectAddArgs& args) = 0;
  virtual void NormGateUp(const NormGateUpArgs& args) = 0;
  virtual void Logits(const LogitsArgs& args) = 0;
  virtual Ticket EndStep() = 0;

  // ---- States and count tables, in order with the steps. ----

  virtual Ticket ZeroState(int32_t slot) = 0;
  // `to` gets the state of `from`; what was last sampled in either stays.
  virtual Ticket CopyState(int32_t from, int32_t to) = 0;
  // Canonical form (state_table.h) of a state that has seen `tokens`, which counts where states
  // grow alone; `host` of the table's bytes for so many, which live until the ticket is done.
  virtual Ticket ReadState(int32_t slot, void* host, int64_t tokens) = 0;
  virtual Ticket WriteState(int32_t slot, const void* host, int64_t tokens) = 0;
  // Nobody wants the slot's state any more: its pages are free.
  virtual void DropState(int32_t) {}
  virtual PageCounts pages() const { return {}; }
  // Makes table `counts` hold `prompt`'s tokens as seen and none as generated. Sampling counts what
  // it draws.
  virtual Ticket ResetCounts(int32_t counts, absl::Span<const int32_t> prompt) = 0;

  // ---- Waiting ----

  // Blocks until `ticket` is done.
  virtual absl::Status Await(Ticket ticket) = 0;
  // True once `ticket` is done or the device has failed; never blocks.
  virtual bool Done(Ticket ticket) = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_BACKEND_H_
