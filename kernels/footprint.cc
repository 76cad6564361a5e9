#include "kernels/footprint.h"

#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cuda/layout.h"
#include "kernels/state_table.h"

namespace sluice {
namespace {

constexpr int64_t kBf16Bytes = 2;

}  // namespace

int64_t SlotBytes(DeviceKind device, const ModelSpec& spec) {
  const StateTable table = MakeStateTable(spec);
  return device == DeviceKind::kCuda ? table.bytes() : StatePool::SlotBytes(table);
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
