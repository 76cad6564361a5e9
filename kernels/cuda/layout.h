// The backend's layout of matrices: rows padded with zeros to whole 128-byte lines of bf16.
#ifndef SLUICE_KERNELS_CUDA_LAYOUT_H_
#define SLUICE_KERNELS_CUDA_LAYOUT_H_

#include <cstdint>

namespace sluice::cuda {

// Elements between rows of weights, of activations (fp32 or bf16) and of vectors.
inline constexpr int64_t Stride(int64_t cols) { return (cols + 63) / 64 * 64; }

// Elements between a head's keys in the buffers of prompt chunks.
inline constexpr int64_t KeyStride(int64_t dk) { return (dk + 63) / 64 * 64; }

// Rows of gate and of up alternate in blocks of this many in the SwiGLU's matrix; a last block is
// padded with zeros.
inline constexpr int64_t kGateUpBlock = 16;

// Below every decay that matters (2^-10000 is zero), and far from where sums of 64 overflow.
inline constexpr float kMinLogDecay2 = -10000.0f;

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_LAYOUT_H_
