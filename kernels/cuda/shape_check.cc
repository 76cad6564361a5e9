#include "absl/strings/str_cat.h"
#include "kernels/cuda/coverage.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/step_runner.h"
#include "kernels/footprint.h"

namespace sluice {
namespace {

// Of a block, on Hopper and on the least of the others (sm_86).
constexpr size_t kHopperSharedBytes = 227 * 1024, kSharedBytes = 99 * 1024;

}  // namespace

absl::Status CheckCudaShape(const ModelShape& shape) {
  if (absl::Status status = CheckShape(DeviceKind::kCuda, shape); !status.ok()) return status;
  const size_t bytes = cuda::GlaDecodeSharedBytes(cuda::StepRunner::ShapeArgs(shape));
  const size_t most = cuda::HasHopperCode() ? kHopperSharedBytes : kSharedBytes;
  if (bytes > most) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: a kv head's query heads and dk need ",
                                                   bytes, " bytes of shared memory, at most ", most,
                                                   " are there"));
  }
  return absl::OkStatus();
}

}  // namespace sluice
