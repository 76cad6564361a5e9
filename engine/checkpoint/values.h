// Loops over stored values: is everything finite, and conversion to fp32. Written for the compiler
// to vectorise.
#ifndef SLUICE_ENGINE_CHECKPOINT_VALUES_H_
#define SLUICE_ENGINE_CHECKPOINT_VALUES_H_

#include <cstdint>

#include "kernels/tensor.h"

namespace sluice {

// Index of the first NaN or infinity among `count` values at `data`; -1 when there is none.
int64_t FirstNonFinite(const void* data, DType dtype, int64_t count);

// Exact for every value, subnormal ones too, whatever the thread's rounding mode and flush flags.
void ConvertToF32(const void* data, DType dtype, int64_t count, float* out);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_VALUES_H_
