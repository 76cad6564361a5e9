// A language model on a backend: the forward pass of one step.
#ifndef SLUICE_ENGINE_MODEL_H_
#define SLUICE_ENGINE_MODEL_H_

#include <map>
#include <memory>
#include <utility>
#include <variant>
#include <vector>

#include "absl/status/statusor.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace sluice {

// Lives on the thread that drives the backend. The backend outlives it.
class Model {
 public:
  // Allocates the activations of a step of at most `max_rows` rows, and plans its ops. `weights`
  // has the spec's shape.
  static absl::StatusOr<std::unique_ptr<Model>> Create(Backend* backend, const ModelSpec& spec,
                                                       Weights weights, int32_t max_rows);

  // Before the first step: lets the backend make what is otherwise made when first used. States are
  // allocated.
  absl::Status Prepare();
  // Launches one step; `rows` as Backend::BeginStep wants it.
  Ticket Step(const StepRows* rows);

  const ModelSpec& spec() const { return spec_; }

 private:
  using Op =
      std::variant<EmbedArgs, NormProjectArgs, MixArgs, ProjectAddArgs, NormGateUpArgs, LogitsArgs>;

  Model() = default;

  absl::Status Allocate(int32_t max_rows);
  void Plan();
  void PlanBranch(int64_t layer, const BranchSpec& spec, const BranchWeights& weights,
                  size_t branch);

  Backend* backend_ = nullptr;
  ModelSpec spec_;
  Weights weights_;
  Activation x_;  // (max_rows, hidden): the residual stream
  // The inputs of the mixers that are a branch's first unit, its second, and so on, each as wide as
  // the widest that needs it.
  std::vector<Activation> in_;
  // What comes out of a mixer or of an MLP's first half, by unit and width. Behind its columns
  // products read zeros, which units of another width would have written over: a state that is not
  // finite would then reach other sequences.
  std::map<std::pair<size_t, int64_t>, Activation> out_;
  // One for each branch, in their order; the ops point into both.
  std::vector<StreamNorm> norms_;
  std::vector<StreamNorm> out_norms_;
  std::vector<Op> ops_;  // of a step, in their order
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_MODEL_H_
