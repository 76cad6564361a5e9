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

absl::Status Refuse(absl::string_view what, int64_t value, absl::string_view rule) {
  return absl::InvalidArgumentError(
      absl::StrCat("cuda: ", what, " is ", value, ", must be ", rule));
}

}  // namespace

absl::Status CheckShape(DeviceKind device, const ModelShape& shape) {
  if (device != DeviceKind::kCuda) return absl::OkStatus();
  if (shape.dk % 8 != 0) return Refuse("dk (keys of a head)", shape.dk, "a multiple of 8");
  if (shape.dv % 8 != 0) return Refuse("dv (values of a head)", shape.dv, "a multiple of 8");
  if (shape.conv_size > 64) return Refuse("conv_size", shape.conv_size, "at most 64");
  if (shape.heads > 65535) return Refuse("num_heads", shape.heads, "at most 65535");
  constexpr int64_t kMaxDimension = int64_t{1} << 24;
  for (int64_t dimension : {shape.vocab, shape.mixer_in_dim(), shape.intermediate, shape.hidden}) {
    if (dimension > kMaxDimension) return Refuse("a dimension", dimension, "at most 2^24");
  }
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
