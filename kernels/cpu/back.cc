#include "kernels/cpu/back.h"

#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/norm.h"

namespace sluice {

void RunBack(const MixArgs& args, int64_t row, int64_t begin, int64_t end, const float* o,
             int64_t o_stride) {
  const MixerSpec& s = *args.spec;
  const float* in = static_cast<const float*>(args.in.data) + row * PaddedCols(args.in.cols);
  float* out = static_cast<float*>(args.out.data) + row * PaddedCols(args.out.cols);
  const float* gate = s.gated() ? in + s.out_gate.offset : nullptr;
  for (int64_t head = begin; head < end; ++head) {
    GatedRmsNorm(o + head * o_stride, args.weights->out_norm.data,
                 gate == nullptr ? nullptr : gate + head * s.dv, s.dv, s.out_norm.eps,
                 out + head * s.dv);
  }
}

}  // namespace sluice
