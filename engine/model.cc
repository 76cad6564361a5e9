#include "engine/model.h"

#include <utility>

namespace sluice {

absl::StatusOr<std::unique_ptr<Model>> Model::Create(Backend* backend, const ModelShape& shape,
                                                     Weights weights, int32_t max_rows) {
  std::unique_ptr<Model> model(new Model);
  model->backend_ = backend;
  model->shape_ = shape;
  model->weights_ = std::move(weights);
  const auto allocate = [&](int64_t cols, Activation* out) -> absl::Status {
    absl::StatusOr<Activation> activation = backend->AllocateActivation(max_rows, cols);
    if (activation.ok()) *out = *activation;
    return activation.status();
  };
  absl::Status status = allocate(shape.hidden, &model->x_);
  status.Update(allocate(shape.mixer_in_dim(), &model->mixer_in_));
  status.Update(allocate(shape.out_dim(), &model->mixer_out_));
  status.Update(allocate(shape.intermediate, &model->mlp_));
  if (!status.ok()) return status;
  return model;
}

absl::Status Model::Prepare() {
  const StepRows none;
  return backend_->Await(Step(&none));
}

Ticket Model::Step(const StepRows* rows) {
  Backend& b = *backend_;
  b.BeginStep(rows);
  b.Embed({weights_.embeddings, x_});
  for (int64_t i = 0; i < shape_.layers; ++i) {
    const LayerWeights& w = weights_.layers[i];
    b.NormProject({x_, w.attn_norm, w.mixer_in, mixer_in_});
    b.Mix(
        {i, mixer_in_, w.gate, w.gate_bias, w.conv_q, w.conv_k, w.conv_v, w.head_norm, mixer_out_});
    b.ProjectAdd({mixer_out_, w.mixer_out, x_});
    b.NormGateUp({x_, w.mlp_norm, w.gate_up, mlp_});
    b.ProjectAdd({mlp_, w.down, x_});
  }
  b.Logits({x_, weights_.norm, weights_.lm_head});
  return b.EndStep();
}

}  // namespace sluice
