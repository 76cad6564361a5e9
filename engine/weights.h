// The model's weights as a backend holds them, in the shape of its ModelSpec.
#ifndef SLUICE_ENGINE_WEIGHTS_H_
#define SLUICE_ENGINE_WEIGHTS_H_

#include <variant>
#include <vector>

#include "kernels/model_spec.h"

namespace sluice {

using UnitWeights = std::variant<MixerWeights, MlpWeights>;

struct BranchWeights {
  Vector norm;       // (hidden), empty without weights
  Vector norm_bias;  // (hidden), of a LayerNorm
  Vector out_norm;   // (hidden), of BranchSpec::out_norm
  std::vector<UnitWeights> units;
};

struct LayerWeights {
  std::vector<BranchWeights> branches;
};

struct Weights {
  Linear embeddings;  // (vocab, hidden)
  std::vector<LayerWeights> layers;
  Vector norm;       // (hidden)
  Vector norm_bias;  // (hidden), of a LayerNorm
  Linear lm_head;    // (vocab, hidden); the embeddings' handle when tied
};

// A place for each of the spec's weights.
inline Weights EmptyWeights(const ModelSpec& spec) {
  Weights weights;
  for (const LayerSpec& layer : spec.layers) {
    LayerWeights& of_layer = weights.layers.emplace_back();
    for (const BranchSpec& branch : layer.branches) {
      BranchWeights& of_branch = of_layer.branches.emplace_back();
      for (const UnitSpec& unit : branch.units) {
        if (std::holds_alternative<MixerSpec>(unit)) {
          of_branch.units.emplace_back(MixerWeights());
        } else {
          of_branch.units.emplace_back(MlpWeights());
        }
      }
    }
  }
  return weights;
}

}  // namespace sluice

#endif  // SLUICE_ENGINE_WEIGHTS_H_
