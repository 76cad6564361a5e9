// Philox4x32-10, the counter-based random number generator of Salmon et al., "Parallel random
// numbers: as easy as 1, 2, 3" (SC 2011): ten rounds of multiply and xor turn a counter and a key
// into 128 random bits. A number is a function of what it is for, so it needs no stored generator
// and no order of drawing.
#ifndef SLUICE_KERNELS_PHILOX_H_
#define SLUICE_KERNELS_PHILOX_H_

#include <cstdint>

#ifdef __CUDACC__
#define SLUICE_HOST_DEVICE __host__ __device__
#else
#define SLUICE_HOST_DEVICE
#endif

namespace sluice {

struct Philox4x32 {
  uint32_t x[4];
};

SLUICE_HOST_DEVICE inline Philox4x32 Philox(Philox4x32 counter, uint32_t key0, uint32_t key1) {
  constexpr uint32_t kMultiplier0 = 0xD2511F53, kMultiplier1 = 0xCD9E8D57;
  constexpr uint32_t kWeyl0 = 0x9E3779B9, kWeyl1 = 0xBB67AE85;
  uint32_t* x = counter.x;
  for (int round = 0; round < 10; ++round) {
    const uint64_t p0 = uint64_t{kMultiplier0} * x[0];
    const uint64_t p1 = uint64_t{kMultiplier1} * x[2];
    x[0] = static_cast<uint32_t>(p1 >> 32) ^ x[1] ^ key0;
    x[2] = static_cast<uint32_t>(p0 >> 32) ^ x[3] ^ key1;
    x[1] = static_cast<uint32_t>(p1);
    x[3] = static_cast<uint32_t>(p0);
    key0 += kWeyl0;
    key1 += kWeyl1;
  }
  return counter;
}

// The uniform number in [0, 1), with 53 bits, that picks the token at `position` of `sequence`.
SLUICE_HOST_DEVICE inline double UniformAt(uint64_t seed, uint32_t sequence, uint64_t position) {
  const Philox4x32 bits = Philox(
      {{static_cast<uint32_t>(position), static_cast<uint32_t>(position >> 32), sequence, 0}},
      static_cast<uint32_t>(seed), static_cast<uint32_t>(seed >> 32));
  const uint64_t mantissa = (uint64_t{bits.x[0]} << 21) ^ (bits.x[1] >> 11);
  return static_cast<double>(mantissa) * 0x1p-53;
}

}  // namespace sluice

#endif  // SLUICE_KERNELS_PHILOX_H_
