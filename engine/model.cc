#include "engine/model.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

// Columns that a unit's activations have.
struct Widths {
  int64_t in = 0;  // 0: none
  int64_t out = 0;
};

Widths WidthsOf(const UnitSpec& unit) {
  if (const auto* mixer = std::get_if<MixerSpec>(&unit)) return {mixer->in_dim, mixer->out_dim()};
  return {0, std::get<MlpSpec>(unit).intermediate};
}

// Room for `cols` columns, seen as so many.
Activation View(const Activation& room, int64_t cols) { return {room.data, room.rows, cols}; }

// Runs one op on a backend.
struct Runner {
  Backend* backend;
  void operator()(const EmbedArgs& args) const { backend->Embed(args); }
  void operator()(const NormProjectArgs& args) const { backend->NormProject(args); }
  void operator()(const MixArgs& args) const { backend->Mix(args); }
  void operator()(const ProjectAddArgs& args) const { backend->ProjectAdd(args); }
  void operator()(const NormGateUpArgs& args) const { backend->NormGateUp(args); }
  void operator()(const LogitsArgs& args) const { backend->Logits(args); }
};

}  // namespace

absl::StatusOr<std::unique_ptr<Model>> Model::Create(Backend* backend, const ModelSpec& spec,
                                                     Weights weights, int32_t max_rows) {
  std::unique_ptr<Model> model(new Model);
  model->backend_ = backend;
  model->spec_ = spec;
  model->weights_ = std::move(weights);
  absl::Status status = model->Allocate(max_rows);
  if (!status.ok()) return status;
  model->Plan();
  return model;
}

absl::Status Model::Allocate(int32_t max_rows) {
  std::vector<int64_t> widest_in;
  for (const LayerSpec& layer : spec_.layers) {
    for (const BranchSpec& branch : layer.branches) {
      widest_in.resize(std::max(widest_in.size(), branch.units.size()));
      for (size_t i = 0; i < branch.units.size(); ++i) {
        const Widths widths = WidthsOf(branch.units[i]);
        widest_in[i] = std::max(widest_in[i], widths.in);
        out_[{i, widths.out}] = Activation();
      }
    }
  }
  absl::Status status;
  const auto allocate = [&](int64_t cols) {
    if (!status.ok() || cols == 0) return Activation();
    absl::StatusOr<Activation> activation = backend_->AllocateActivation(max_rows, cols);
    status.Update(activation.status());
    return activation.value_or(Activation());
  };
  x_ = allocate(spec_.hidden);
  for (const int64_t cols : widest_in) in_.push_back(allocate(cols));
  for (auto& [unit_and_width, activation] : out_) activation = allocate(unit_and_width.second);
  return status;
}

void Model::Plan() {
  SLUICE_CHECK(weights_.layers.size() == spec_.layers.size());
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    const LayerSpec& layer = spec_.layers[i];
    SLUICE_CHECK(weights_.layers[i].branches.size() == layer.branches.size());
    for (size_t b = 0; b < layer.branches.size(); ++b) {
      const BranchWeights& w = weights_.layers[i].branches[b];
      norms_.push_back({layer.branches[b].norm, w.norm, w.norm_bias});
      out_norms_.push_back({layer.branches[b].out_norm, w.out_norm, {}});
    }
  }
  ops_.push_back(EmbedArgs{weights_.embeddings, x_, spec_.embedding_scale});
  size_t branch = 0;
  for (size_t i = 0; i < spec_.layers.size(); ++i) {
    for (size_t b = 0; b < spec_.layers[i].branches.size(); ++b, ++branch) {
      PlanBranch(static_cast<int64_t>(i), spec_.layers[i].branches[b],
                 weights_.layers[i].branches[b], branch);
      // The next branch norms the sum that this branch adds to last.
      auto* last = std::get_if<ProjectAddArgs>(&ops_.back());
      if (branch + 1 < norms_.size() && last != nullptr) last->next_norm = &norms_[branch + 1];
    }
  }
  ops_.push_back(LogitsArgs{x_,
                            {spec_.final_norm, weights_.norm, weights_.norm_bias},
                            weights_.lm_head,
                            spec_.logit_scale});
}

// All units read x before any adds to it.
void Model::PlanBranch(int64_t layer, const BranchSpec& spec, const BranchWeights& weights,
                       size_t branch) {
  const StreamNorm& norm = norms_[branch];
  const StreamNorm* out_norm =
      spec.out_norm.kind == NormKind::kNone ? nullptr : &out_norms_[branch];
  SLUICE_CHECK(weights.units.size() == spec.units.size());
  std::vector<Op> mixes, adds;
  for (size_t i = 0; i < spec.units.size(); ++i) {
    if (const auto* mixer = std::get_if<MixerSpec>(&spec.units[i])) {
      const auto& w = std::get<MixerWeights>(weights.units[i]);
      const Activation in = View(in_[i], mixer->in_dim), out = out_.at({i, mixer->out_dim()});
      ops_.push_back(NormProjectArgs{x_, norm, w.in, w.in_bias, in, w.in_scale});
      mixes.push_back(MixArgs{mixer, &w, layer, in, out});
      adds.push_back(
          ProjectAddArgs{out, w.out, w.out_bias, x_, nullptr, mixer->out_scale, out_norm});
    } else {
      const auto& mlp = std::get<MlpSpec>(spec.units[i]);
      const auto& w = std::get<MlpWeights>(weights.units[i]);
      const Activation out = out_.at({i, mlp.intermediate});
      ops_.push_back(NormGateUpArgs{x_, norm, mlp.gated ? w.gate_up : w.up, w.gate_bias, w.up_bias,
                                    mlp.act, out, mlp.gated, mlp.gate_scale});
      adds.push_back(
          ProjectAddArgs{out, w.down, w.down_bias, x_, nullptr, mlp.out_scale, out_norm});
    }
  }
  ops_.insert(ops_.end(), mixes.begin(), mixes.end());
  ops_.insert(ops_.end(), adds.begin(), adds.end());
}

absl::Status Model::Prepare() {
  const StepRows none;
  return backend_->Await(Step(&none));
}

Ticket Model::Step(const StepRows* rows) {
  backend_->BeginStep(rows);
  for (const Op& op : ops_) std::visit(Runner{backend_}, op);
  return backend_->EndStep();
}

}  // namespace sluice
