// The back of a mixer: from what the core gives to the rows that the output projection takes.
#ifndef SLUICE_KERNELS_CPU_BACK_H_
#define SLUICE_KERNELS_CPU_BACK_H_

#include <cstdint>

#include "kernels/ops.h"

namespace sluice {

// Norm and output gate of the output heads [begin, end) of row `row`. `o` is of head 0: (heads,
// o_stride), each padded with zeros to whole lines of 16 floats.
void RunBack(const MixArgs& args, int64_t row, int64_t begin, int64_t end, const float* o,
             int64_t o_stride);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_BACK_H_
