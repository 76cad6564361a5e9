// A GLA language model on a backend: the forward pass of one step.
#ifndef SLUICE_ENGINE_MODEL_H_
#define SLUICE_ENGINE_MODEL_H_

#include <memory>

#include "absl/status/statusor.h"
#include "engine/weights.h"
#include "kernels/backend.h"

namespace sluice {

// Lives on the thread that drives the backend. The backend outlives it.
class Model {
 public:
  // Allocates the activations of a step of at most `max_rows` rows.
  static absl::StatusOr<std::unique_ptr<Model>> Create(Backend* backend, const ModelShape& shape,
                                                       Weights weights, int32_t max_rows);

  // Before the first step: lets the backend make what is otherwise made when first used. States are
  // allocated.
  absl::Status Prepare();
  // Launches one step; `rows` as Backend::BeginStep wants it.
  Ticket Step(const StepRows* rows);

  const ModelShape& shape() const { return shape_; }

 private:
  Model() = default;

  Backend* backend_ = nullptr;
  ModelShape shape_;
  Weights weights_;
  Activation x_;          // (max_rows, hidden): the residual stream
  Activation mixer_in_;   // (max_rows, mixer_in_dim)
  Activation mixer_out_;  // (max_rows, heads * dv)
  Activation mlp_;        // (max_rows, intermediate)
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_MODEL_H_
