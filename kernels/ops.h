// The arguments of a backend's ops: plain structs of sizes, handles and host pointers, in the order
// in which a model runs them; `rows` below is the number of rows of the step.
#ifndef SLUICE_KERNELS_OPS_H_
#define SLUICE_KERNELS_OPS_H_

#include <cstdint>

#include "kernels/model_spec.h"
#include "kernels/tensor.h"

namespace sluice {

struct EmbedArgs {
  Linear table;  // (vocab, hidden)
  Activation x;  // out: (rows, hidden)
  float scale = 1.0f;
};

// A norm of the residual stream, with its weights.
struct StreamNorm {
  Norm norm;
  Vector weight;  // (hidden), empty unless norm.affine
  Vector bias;    // (hidden), of NormKind::kLayer
};

// y = scale norm(x) W^T + bias
struct NormProjectArgs {
  Activation x;  // (rows, hidden)
  StreamNorm norm;
  Linear weight;  // (n, hidden)
  Vector bias;    // (n), or empty
  Activation y;   // out: (rows, n)
  Vector scale;   // (n), or empty: 1
};

// A token mixer whole: front, core and back on the slots' states, by the recurrence for decode rows
// and in chunks for prompt segments.
struct MixArgs {
  const MixerSpec* spec = nullptr;  // both outlive the backend's last step
  const MixerWeights* weights = nullptr;
  int64_t layer = 0;
  Activation in;   // (rows, in_dim); may be overwritten
  Activation out;  // out: (rows, out_dim)
};

// x += norm(scale (a W^T + bias))
struct ProjectAddArgs {
  Activation a;   // (rows, k)
  Linear weight;  // (hidden, k)
  Vector bias;    // (hidden), or empty
  Activation x;   // in, out: (rows, hidden)
  // The norm of x that the next product begins with, whatever stands between; null: x is added to
  // once more before, or what follows are the logits.
  const StreamNorm* next_norm = nullptr;
  float scale = 1.0f;
  const StreamNorm* out_norm = nullptr;  // of what is added; null: none
};

// y = act(gate_scale (b Wg^T + gate_bias)) * (b Wu^T + up_bias) with b = norm(x); without a gate
// y = act(b W^T + up_bias)
struct NormGateUpArgs {
  Activation x;  // (rows, hidden)
  StreamNorm norm;
  Linear weight;  // (2 * intermediate, hidden): made by LoadGateUp; (intermediate, hidden)
  Vector gate_bias, up_bias;  // (intermediate), or empty
  Act act = Act::kSilu;
  Activation y;  // out: (rows, intermediate)
  bool gated = true;
  float gate_scale = 1.0f;
};

// logits = scale norm(x) W^T for StepRows::logits, then scores and samples them.
struct LogitsArgs {
  Activation x;  // (rows, hidden)
  StreamNorm norm;
  Linear weight;  // (vocab, hidden)
  float scale = 1.0f;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_OPS_H_
