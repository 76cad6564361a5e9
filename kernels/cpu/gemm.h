// C = A W^T for packed weights (pack.h). Every element of C is one chain acc = fma(a[m][i],
// w[n][i], acc), i ascending from acc = 0: a row's bits are the same alone, in any batch, in any
// tile and on any thread. That is why it is not a library's GEMM, which picks its order of
// summation by the shape.
#ifndef SLUICE_KERNELS_CPU_GEMM_H_
#define SLUICE_KERNELS_CPU_GEMM_H_

#include <cstdint>

#include "kernels/cpu/thread_pool.h"
#include "kernels/mixer_spec.h"

namespace sluice {

enum class GemmStore : uint8_t {
  kSet,     // C = acc
  kAdd,     // C = C + acc
  kSwiGlu,  // C = act(acc of gate) * acc of up; W made by PackGateUp
  kAct,     // C = act(acc)
};

struct GemmArgs {
  const float* a = nullptr;  // (m, w.k)
  int64_t lda = 0;           // floats between rows of A
  int64_t m = 0;
  Linear w;            // (n, k), packed
  float* c = nullptr;  // (m, n), or (m, n / 2) for kSwiGlu; whole lines of 16 floats are written
  int64_t ldc = 0;     // a multiple of 16
  GemmStore store = GemmStore::kSet;
  const float* bias = nullptr;  // added to acc: (n) padded to a line, of gate for kSwiGlu; null: 0
  const float* up_bias = nullptr;  // kSwiGlu: of up
  Act act = Act::kSilu;            // kSwiGlu, kAct
  // On acc before its bias: (n) padded to a line; null: 1. Not for kSwiGlu.
  const float* scale = nullptr;
  float factor = 1.0f;  // on acc with its bias; kSwiGlu: of gate alone
};

// Panels of 16 packed rows that W has.
int64_t GemmPanels(const GemmArgs& args);

// Computes the columns of panels [panel_begin, panel_end) for rows [row_begin, row_end), on this
// thread.
void GemmBlock(const GemmArgs& args, int64_t row_begin, int64_t row_end, int64_t panel_begin,
               int64_t panel_end);

// All of it, on the pool.
void Gemm(ThreadPool* pool, const GemmArgs& args);

// Name of the instruction set in use.
const char* SimdName();

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_GEMM_H_
