// One token of gated linear attention by its recurrence (arXiv 2312.06635, equation 4), for decode
// rows:
//   S <- diag(alpha) S + k^T v        o = (q / sqrt(dk)) S
// One pass over the state: each element is read, decayed, updated, used and written once.
#ifndef SLUICE_KERNELS_CPU_LINEAR_RECURRENT_H_
#define SLUICE_KERNELS_CPU_LINEAR_RECURRENT_H_

#include <cstdint>

namespace sluice {

// One kv head. dv_padded is a multiple of 16; what lies past dv is zeros.
struct LinearRecurrentArgs {
  int64_t dk = 0;
  int64_t dv_padded = 0;
  int64_t groups = 0;        // query heads that share the state
  const float* q = nullptr;  // (groups, q_stride), scaled
  int64_t q_stride = 0;
  const float* k = nullptr;      // (dk)
  const float* alpha = nullptr;  // (dk)
  const float* v = nullptr;      // (dv_padded)
  float* state = nullptr;        // (dk, dv_padded), in place
  float* o = nullptr;            // (groups, dv_padded)
};

void LinearRecurrent(const LinearRecurrentArgs& args);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LINEAR_RECURRENT_H_
