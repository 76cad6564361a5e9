// sluice_bench tune.
#include <algorithm>
#include <cstdio>
#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/layout.h"
#include "tests/bench/cuda_benches.h"
#include "tests/bench/cuda_timing.h"

namespace sluice {

using cuda::Memory;
using Bf16 = __nv_bfloat16;

// Prints rows of gemm_lt_table.h: for each product the algorithm with the best total over several
// numbers of rows.
int RunCudaTune(int device) {
  CudaTiming timing(device);
  const double gemm_rate = timing.MeasureLimits().gemm_rate;
  auto lt = timing.Library();
  constexpr int kRows = 8192;
  Memory x = RandomBf16(int64_t{kRows} * 5632, 1.0f), y = DeviceBytes(int64_t{kRows} * 32000 * 4);
  std::printf("\n");
  for (const NamedProduct& p : kProducts) {
    Memory w = RandomBf16(p.n * p.k, 1.0f);
    const cuda::LtStore store = LibraryStore(p.store);
    cuda::LtGemm gemm = {x.as<Bf16>(), w.as<Bf16>(), y.as<void>(),      kRows,
                         p.n,          p.k,          cuda::Stride(p.n), store};
    std::vector<cuda::GemmLt::Algorithm> all;
    for (const int rows : {512, 2048, 8192}) {
      gemm.rows = rows;
      auto candidates = lt->Candidates(gemm, 12);
      Ok(candidates.status());
      for (auto& candidate : *candidates) {
        if (std::find(all.begin(), all.end(), candidate) == all.end()) all.push_back(candidate);
      }
    }
    double best = 1e30;
    const cuda::GemmLt::Algorithm* winner = nullptr;
    std::string line;
    for (const auto& algorithm : all) {
      double score = 0.0;
      std::string times;
      for (const int rows : {512, 2048, 8192}) {
        gemm.rows = rows;
        if (!lt->RunWith(gemm, algorithm, timing.stream()).ok()) {
          score = 1e30;
          break;
        }
        const double us =
            timing.Time(6, [&](int) { Ok(lt->RunWith(gemm, algorithm, timing.stream())); });
        const double ideal = 2e6 * rows * p.n * p.k / gemm_rate;
        score += us / ideal * (rows == 512 ? 0.5 : rows == 2048 ? 1.0 : 1.0);
        absl::StrAppend(&times, " ", static_cast<int>(100 * ideal / us), "%");
      }
      if (score < best) {
        best = score;
        winner = &algorithm;
        line = times;
      }
    }
    std::printf("    // %s, of the 8192^3 rate at 512, 2048, 8192 rows:%s (of %d algorithms)\n",
                p.name, line.c_str(), static_cast<int>(all.size()));
    std::printf("    {\"%s\", %llu, %lld, %lld, %d, {", timing.gpu(),
                static_cast<unsigned long long>(lt->version()), static_cast<long long>(p.n),
                static_cast<long long>(p.k), static_cast<int>(store));
    for (size_t i = 0; i < winner->size(); ++i)
      std::printf("%s0x%llx", i == 0 ? "" : ", ", static_cast<unsigned long long>((*winner)[i]));
    std::printf("}},\n");
  }
  return 0;
}

}  // namespace sluice
