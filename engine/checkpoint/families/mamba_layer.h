// A layer of Mamba-2 (arXiv 2405.21060), as mamba2's models and hybrids have it. Per head j, which
// reads group j / (H / G) of B and C:
//   dt = clamp(softplus(x_dt + dt_bias)),  S <- e^(-dt e^A_log) S + B (dt x)^T,  y = C^T S + D x
#ifndef SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA_LAYER_H_
#define SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA_LAYER_H_

#include <cstdint>
#include <limits>
#include <string>

#include "engine/checkpoint/config.h"
#include "engine/checkpoint/config_reader.h"
#include "engine/checkpoint/tensor_table.h"
#include "kernels/mixer_spec.h"

namespace sluice {

struct MambaShape {
  int64_t heads = 0, head_dim = 0, groups = 0, state = 0, taps = 0;
  bool conv_bias = true;
  bool wide_skip = false;         // D has a value for each channel
  bool gated_norm = true;         // else the gate alone
  bool norm_before_gate = false;  //
  float eps = 1e-5f;
  double dt_min = 0.0, dt_max = std::numeric_limits<double>::infinity();
  float out_scale = 1.0f;  // of what the layer adds

  int64_t inner() const { return heads * head_dim; }
};

// A pair of numbers [least, most] for dt, null, or missing.
void ReadTimeStepLimit(const char* name, ConfigReader* reader, MambaShape* shape);

// The fields of hybrids whose names begin with mamba_. `inner`: channels of x; 0: mamba_expand
// times `hidden`. Without `used` the model has no such layer, and the fields may contradict.
void ReadMambaFields(ConfigReader* reader, int64_t hidden, int64_t inner, bool used,
                     MambaShape* shape);

// Columns z, x, B, C, dt.
MixerSpec MambaMixer(const MambaShape& shape, const MambaConfig& parts);

// " heads=4 head_dim=16 ..."
std::string MambaIdentity(const MambaShape& shape, const MambaConfig& parts);

// in_proj, conv1d, dt_bias, A_log, D, norm, out_proj.
void MambaTensors(const MixerSpec& m, const MambaConfig& parts, int64_t hidden, TensorScope scope);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_FAMILIES_MAMBA_LAYER_H_
