#include "kernels/footprint.h"

#include "absl/strings/str_cat.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cuda/layout.h"
#include "kernels/state_layout.h"

namespace sluice {
namespace {

constexpr int64_t kBf16Bytes = 2;

}  // namespace

absl::Status CheckShape(DeviceKind device, const ModelShape& shape) {
  if (device != DeviceKind::kCuda) return absl::OkStatus();
  // In the words of kernels/cuda/shape_check.cc, which is not in every build.
  const auto refuse = [](const char* what, int64_t value) {
    return absl::InvalidArgumentError(
        absl::StrCat("cuda: ", what, " is ", value, ", must be a multiple of 8"));
  };
  if (shape.dk % 8 != 0) return refuse("dk (keys of a head)", shape.dk);
  if (shape.dv % 8 != 0) return refuse("dv (values of a head)", shape.dv);
  return absl::OkStatus();
}

int64_t SlotBytes(DeviceKind device, const ModelShape& shape) {
  return device == DeviceKind::kCuda ? MakeStateLayout(shape).bytes() : StatePool::SlotBytes(shape);
}

absl::StatusOr<Linear> WeightSizer::LoadLinear(absl::Span<const MatrixView> blocks) {
  Linear linear{nullptr, blocks[0].dtype, 0, blocks[0].cols};
  for (const MatrixView& block : blocks) linear.n += block.rows;
  bytes_ += device_ == DeviceKind::kCuda
                ? linear.n * cuda::Stride(linear.k) * kBf16Bytes
                : PanelCount(linear.n) * PanelBytes(linear.k, linear.dtype);
  return linear;
}

absl::StatusOr<Linear> WeightSizer::LoadGateUp(const MatrixView& gate, const MatrixView&) {
  const int64_t pairs = device_ == DeviceKind::kCuda ? cuda::kGateUpBlock : kPanelPairs;
  const int64_t rows = 2 * RoundUp(gate.rows, pairs);
  bytes_ += device_ == DeviceKind::kCuda ? rows * cuda::Stride(gate.cols) * kBf16Bytes
                                         : PanelCount(rows) * PanelBytes(gate.cols, gate.dtype);
  return Linear{nullptr, gate.dtype, 2 * gate.rows, gate.cols};
}

absl::StatusOr<Vector> WeightSizer::LoadVector(const MatrixView& values) {
  const int64_t size = values.rows * values.cols;
  bytes_ += (device_ == DeviceKind::kCuda ? cuda::Stride(size) : PaddedCols(size)) *
            static_cast<int64_t>(sizeof(float));
  return Vector{nullptr, size};
}

}  // namespace sluice
