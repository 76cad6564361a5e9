// cuBLASLt for many rows, opened at run time: a host without CUDA needs none of its libraries.
//
// The algorithm of a product is chosen once per (N, K, kind of output) and never by the number of
// rows, with no split of K, so a row's bits do not depend on its neighbours. Known hardware takes
// it from the table in gemm_lt_table.h, other hardware from the library's own ranking at
// kReferenceRows.
#ifndef SLUICE_KERNELS_CUDA_GEMM_LT_H_
#define SLUICE_KERNELS_CUDA_GEMM_LT_H_

#include <cuda_bf16.h>
#include <cuda_runtime_api.h>

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <tuple>
#include <vector>

#include "absl/status/statusor.h"

namespace sluice::cuda {

enum class LtStore : uint8_t {
  kBf16,   // y = x W^T
  kAdd,    // y (fp32) += x W^T
  kFloat,  // y (fp32) = x W^T
};

struct LtGemm {
  const __nv_bfloat16* x = nullptr;  // (rows, k)
  const __nv_bfloat16* w = nullptr;  // (n, k)
  void* y = nullptr;                 // (rows, y_stride)
  int64_t rows = 0, n = 0, k = 0;    // k: the stride of x and W
  int64_t y_stride = 0;
  LtStore store = LtStore::kBf16;
};

class GemmLt {
 public:
  // Algorithms are as the library writes them.
  using Algorithm = std::vector<uint64_t>;
  static constexpr int64_t kReferenceRows = 4096;

  static absl::StatusOr<std::unique_ptr<GemmLt>> Create(const std::string& gpu);
  ~GemmLt();

  absl::Status Run(const LtGemm& gemm, cudaStream_t stream);

  // The library's own ranking for this product at its number of rows, best first; for the tuning
  // tool.
  absl::StatusOr<std::vector<Algorithm>> Candidates(const LtGemm& gemm, int count);
  absl::Status RunWith(const LtGemm& gemm, const Algorithm& algorithm, cudaStream_t stream);

  uint64_t version() const { return version_; }

 private:
  struct Library;
  using Key = std::tuple<int64_t, int64_t, LtStore>;

  GemmLt() = default;

  std::unique_ptr<Library> library_;
  std::string gpu_;
  uint64_t version_ = 0;
  std::map<Key, Algorithm> algorithms_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_GEMM_LT_H_
