// Algorithms measured to be the fastest over 512, 2,048 and 8,192 rows together; written by
// `sluice_bench tune`.
#ifndef SLUICE_KERNELS_CUDA_GEMM_LT_TABLE_H_
#define SLUICE_KERNELS_CUDA_GEMM_LT_TABLE_H_

#include <cstdint>

namespace sluice::cuda {

struct LtTableEntry {
  const char* gpu;
  uint64_t version;  // of cuBLASLt
  int64_t n, k;
  int store;  // LtStore
  uint64_t algorithm[8];
};

inline constexpr LtTableEntry kLtTable[] = {
    // clang-format off
    // mixer in, of the 8192^3 rate at 512, 2048, 8192 rows: 89% 100% 102% (of 20 algorithms)
    {"NVIDIA H200", 130100, 6160, 2048, 0, {0x1f00000042, 0x100000023, 0x0, 0x5000000000007, 0x1fc3400000001, 0xe0000000e, 0x44000e000e, 0x0}},
    // mixer out, of the 8192^3 rate at 512, 2048, 8192 rows: 58% 79% 83% (of 20 algorithms)
    {"NVIDIA H200", 130100, 2048, 2048, 1, {0x1100000042, 0x100000023, 0x0, 0x3000000000000, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // gate, up, of the 8192^3 rate at 512, 2048, 8192 rows: 95% 106% 108% (of 18 algorithms)
    {"NVIDIA H200", 130100, 11264, 2048, 0, {0xc900000042, 0x100000023, 0x0, 0x5000000000002, 0x1fc3400000001, 0xe0000000e, 0x44000e000e, 0x0}},
    // down, of the 8192^3 rate at 512, 2048, 8192 rows: 48% 93% 97% (of 20 algorithms)
    {"NVIDIA H200", 130100, 2048, 5632, 1, {0x1500000042, 0x100000023, 0x0, 0x5000000000003, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // lm head, of the 8192^3 rate at 512, 2048, 8192 rows: 83% 94% 89% (of 11 algorithms)
    {"NVIDIA H200", 130100, 32000, 2048, 2, {0xc500000042, 0x100000023, 0x0, 0x5000000000002, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // mixer in, of the 8192^3 rate at 512, 2048, 8192 rows: 88% 102% 105% (of 22 algorithms)
    {"NVIDIA H100 80GB HBM3", 130100, 6160, 2048, 0, {0x1f00000042, 0x100000023, 0x0, 0x5000000000007, 0x1fc3400000001, 0xe0000000e, 0x44000e000e, 0x0}},
    // mixer out, of the 8192^3 rate at 512, 2048, 8192 rows: 59% 86% 81% (of 21 algorithms)
    {"NVIDIA H100 80GB HBM3", 130100, 2048, 2048, 1, {0xb700000042, 0x100000023, 0x0, 0x8000000000002, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // gate, up, of the 8192^3 rate at 512, 2048, 8192 rows: 95% 109% 112% (of 16 algorithms)
    {"NVIDIA H100 80GB HBM3", 130100, 11264, 2048, 0, {0xc900000042, 0x100000023, 0x0, 0x5000000000002, 0x1fc3400000001, 0xe0000000e, 0x44000e000e, 0x0}},
    // down, of the 8192^3 rate at 512, 2048, 8192 rows: 50% 92% 94% (of 21 algorithms)
    {"NVIDIA H100 80GB HBM3", 130100, 2048, 5632, 1, {0x1500000042, 0x100000023, 0x0, 0x5000000000003, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // lm head, of the 8192^3 rate at 512, 2048, 8192 rows: 83% 96% 93% (of 11 algorithms)
    {"NVIDIA H100 80GB HBM3", 130100, 32000, 2048, 2, {0xc500000042, 0x100000023, 0x0, 0x5000000000002, 0x1fc3400000001, 0xe0000000e, 0x4400000000, 0x0}},
    // clang-format on
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_GEMM_LT_TABLE_H_
