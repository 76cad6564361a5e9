// In the place of the GPU's benchmarks, where CUDA's compiler was missing.
#include <cstdio>

#include "tests/bench/cuda_benches.h"

namespace sluice {
namespace {

int Refuse() {
  std::fprintf(stderr, "sluice_bench: this program was built without CUDA\n");
  return 2;
}

}  // namespace

int RunCudaKernelsBench(int, const std::vector<std::string>&) { return Refuse(); }
int RunCudaTune(int) { return Refuse(); }

}  // namespace sluice
