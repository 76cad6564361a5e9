// Describes a model as data: layers of branches, each of which adds what its units make of the
// normed residual stream.
//   x = embedding_scale * embeddings[token]
//   each branch: y = norm(x); x += sum over units of unit(y)
//   logits = lm_head final_norm(x)
#ifndef SLUICE_KERNELS_MODEL_SPEC_H_
#define SLUICE_KERNELS_MODEL_SPEC_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/mixer_spec.h"

namespace sluice {

// down(act(gate) * up), its gate and up in one matrix.
struct MlpSpec {
  int64_t intermediate = 0;
  Act act = Act::kSilu;
};

// An MLP's weights as a backend holds them.
struct MlpWeights {
  Linear gate_up;             // (2 * intermediate, hidden): made by LoadGateUp
  Vector gate_bias, up_bias;  // (intermediate)
  Linear down;                // (hidden, intermediate)
  Vector down_bias;           // (hidden)
};

using UnitSpec = std::variant<MixerSpec, MlpSpec>;

struct BranchSpec {
  Norm norm;                    // of the residual stream, before the units
  std::vector<UnitSpec> units;  // what they give is added; none reads what another has added
};

struct LayerSpec {
  std::vector<BranchSpec> branches;  // one after another
};

struct ModelSpec {
  int64_t vocab = 0;
  int64_t hidden = 0;
  float embedding_scale = 1.0f;
  std::vector<LayerSpec> layers;
  Norm final_norm;
};

// Calls `visit(int64_t layer, const MixerSpec&)` for each mixer, in the order in which they run.
template <typename Visit>
void ForEachMixer(const ModelSpec& spec, Visit visit) {
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    for (const BranchSpec& branch : spec.layers[layer].branches) {
      for (const UnitSpec& unit : branch.units) {
        if (const auto* mixer = std::get_if<MixerSpec>(&unit)) {
          visit(static_cast<int64_t>(layer), *mixer);
        }
      }
    }
  }
}

// The same for each MLP.
template <typename Visit>
void ForEachMlp(const ModelSpec& spec, Visit visit) {
  for (size_t layer = 0; layer < spec.layers.size(); ++layer) {
    for (const BranchSpec& branch : spec.layers[layer].branches) {
      for (const UnitSpec& unit : branch.units) {
        if (const auto* mlp = std::get_if<MlpSpec>(&unit)) visit(static_cast<int64_t>(layer), *mlp);
      }
    }
  }
}

}  // namespace sluice

#endif  // SLUICE_KERNELS_MODEL_SPEC_H_
