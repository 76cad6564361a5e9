// Describes a model as data: layers of branches, each of which adds what its units make of the
// normed residual stream.
//   x = embedding_scale * embeddings[token]
//   each branch: y = norm(x); x += sum over units of out_norm(out_scale unit(y))
//   logits = logit_scale lm_head final_norm(x)
#ifndef SLUICE_KERNELS_MODEL_SPEC_H_
#define SLUICE_KERNELS_MODEL_SPEC_H_

#include <cstdint>
#include <variant>
#include <vector>

#include "kernels/mixer_spec.h"

namespace sluice {

// down(act(gate_scale gate) * up), its gate and up in one matrix; without a gate down(act(up)).
struct MlpSpec {
  int64_t intermediate = 0;
  Act act = Act::kSilu;
  bool gated = true;
  float gate_scale = 1.0f;
  float out_scale = 1.0f;  // on what the MLP adds to the residual stream
};

// An MLP's weights as a backend holds them.
struct MlpWeights {
  Linear gate_up;             // (2 * intermediate, hidden): made by LoadGateUp
  Linear up;                  // (intermediate, hidden), where there is no gate
  Vector gate_bias, up_bias;  // (intermediate)
  Linear down;                // (hidden, intermediate)
  Vector down_bias;           // (hidden)
};

using UnitSpec = std::variant<MixerSpec, MlpSpec>;

struct BranchSpec {
  Norm norm;                    // of the residual stream, before the units
  std::vector<UnitSpec> units;  // what they give is added; none reads what another has added
  Norm out_norm = {.kind = NormKind::kNone};  // of what each unit gives
};

struct LayerSpec {
  std::vector<BranchSpec> branches;  // one after another
};

struct ModelSpec {
  int64_t vocab = 0;  // rows of the embeddings and of the head
  // Tokens from here on are never sampled, since no text has them: rows that pad the vocabulary. 0:
  // there are none.
  int64_t first_unsampled = 0;
  int64_t hidden = 0;
  float embedding_scale = 1.0f;
  float logit_scale = 1.0f;
  std::vector<LayerSpec> layers;
  Norm final_norm;
};

// How many of the vocabulary's tokens may be sampled, counted from the first.
inline int64_t SampledTokens(const ModelSpec& spec) {
  return spec.first_unsampled > 0 ? spec.first_unsampled : spec.vocab;
}

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
