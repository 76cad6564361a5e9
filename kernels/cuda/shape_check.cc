#include "absl/strings/str_cat.h"
#include "kernels/cuda/cuda_backend.h"
#include "kernels/cuda/step_runner.h"

namespace sluice {
namespace {

constexpr size_t kMaxSharedBytes = 227 * 1024;

absl::Status Refuse(absl::string_view what, int64_t value, absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("cuda: ", what, " is ", value, ", must be ", rule));
}

}  // namespace

absl::Status CheckCudaShape(const ModelShape& shape) {
  if (shape.dk % 8 != 0) return Refuse("dk (keys of a head)", shape.dk, "a multiple of 8");
  if (shape.dv % 8 != 0) return Refuse("dv (values of a head)", shape.dv, "a multiple of 8");
  if (shape.conv_size > 64) return Refuse("conv_size", shape.conv_size, "at most 64");
  if (shape.heads > 65535) return Refuse("num_heads", shape.heads, "at most 65535");
  constexpr int64_t kMaxDimension = int64_t{1} << 24;
  for (int64_t dimension : {shape.vocab, shape.mixer_in_dim(), shape.intermediate, shape.hidden}) {
    if (dimension > kMaxDimension) return Refuse("a dimension", dimension, "at most 2^24");
  }
  const size_t bytes = cuda::GlaDecodeSharedBytes(cuda::StepRunner::ShapeArgs(shape));
  if (bytes > kMaxSharedBytes) {
    return absl::InvalidArgumentError(absl::StrCat("cuda: a kv head's query heads and dk need ",
                                                   bytes, " bytes of shared memory, at most ",
                                                   kMaxSharedBytes, " are there"));
  }
  return absl::OkStatus();
}

}  // namespace sluice
