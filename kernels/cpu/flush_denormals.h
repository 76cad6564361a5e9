// While one lives, its thread treats subnormal floats as zero. Strong gates decay states into the
// subnormal range, where arithmetic is up to a hundred times slower on some CPUs and its result
// does not matter.
#ifndef SLUICE_KERNELS_CPU_FLUSH_DENORMALS_H_
#define SLUICE_KERNELS_CPU_FLUSH_DENORMALS_H_

#if defined(__x86_64__)
#include <xmmintrin.h>
#endif

#include <cstdint>

namespace sluice {

class FlushDenormals {
 public:
#if defined(__x86_64__)
  FlushDenormals() : saved_(_mm_getcsr()) { _mm_setcsr(saved_ | kFlushToZero | kDenormalsAreZero); }
  ~FlushDenormals() { _mm_setcsr(saved_); }
#elif defined(__aarch64__)
  FlushDenormals() {
    asm volatile("mrs %0, fpcr" : "=r"(saved_));
    asm volatile("msr fpcr, %0" ::"r"(saved_ | (uint64_t{1} << 24)));
  }
  ~FlushDenormals() { asm volatile("msr fpcr, %0" ::"r"(saved_)); }
#else
  FlushDenormals() {}
#endif
  FlushDenormals(const FlushDenormals&) = delete;
  FlushDenormals& operator=(const FlushDenormals&) = delete;

 private:
#if defined(__x86_64__)
  static constexpr uint32_t kFlushToZero = 0x8000;
  static constexpr uint32_t kDenormalsAreZero = 0x0040;
  uint32_t saved_;
#elif defined(__aarch64__)
  uint64_t saved_;
#endif
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_FLUSH_DENORMALS_H_
