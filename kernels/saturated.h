// Sums and products of sizes that may be too large for 64 bits.
#ifndef SLUICE_KERNELS_SATURATED_H_
#define SLUICE_KERNELS_SATURATED_H_

#include <cstdint>
#include <limits>

namespace sluice {

// The product of factors that are not negative, or INT64_MAX if it does not fit.
inline int64_t SaturatedProduct(int64_t a, int64_t b) {
  int64_t product = 0;
  return __builtin_mul_overflow(a, b, &product) ? std::numeric_limits<int64_t>::max() : product;
}

inline int64_t SaturatedSum(int64_t a, int64_t b) {
  int64_t sum = 0;
  return __builtin_add_overflow(a, b, &sum) ? std::numeric_limits<int64_t>::max() : sum;
}

}  // namespace sluice

#endif  // SLUICE_KERNELS_SATURATED_H_
