#include "kernels/cuda/weight_uploader.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/host_convert.h"
#include "kernels/cuda/layout.h"

namespace sluice::cuda {
namespace {

// A row of the largest dimension there may be, 2^24, in fp32.
constexpr int64_t kPieceBytes = int64_t{1} << 26;

}  // namespace

absl::Status WeightUploader::Prepare() {
  if (stream_.get() != nullptr) return absl::OkStatus();
  for (Piece& piece : pieces_) {
    absl::StatusOr<Memory> memory =
        Memory::Allocate(MemoryKind::kPinnedHost, kPieceBytes, "weights on their way");
    if (!memory.ok()) return memory.status();
    piece.memory = *std::move(memory);
    if (absl::Status status = MakeEvent(&piece.copied); !status.ok()) return status;
  }
  return MakeStream(&stream_);
}

absl::StatusOr<Memory> WeightUploader::Upload(int64_t rows, int64_t row_bytes,
                                              absl::FunctionRef<void(int64_t row, void* to)> fill) {
  if (absl::Status status = Prepare(); !status.ok()) return status;
  absl::StatusOr<Memory> memory =
      Memory::Allocate(MemoryKind::kDevice, CheckedBytes(rows, row_bytes, 1), "weights");
  if (!memory.ok()) return memory;
  if (row_bytes > kPieceBytes)
    return absl::InvalidArgumentError("cuda: a weight's row is too long");
  const int64_t rows_per_piece = kPieceBytes / row_bytes;
  for (int64_t first = 0, at = 0; first < rows; first += rows_per_piece, ++at) {
    Piece& piece = pieces_[at % pieces_.size()];
    absl::Status status = CudaStatus(cudaEventSynchronize(piece.copied.get()), "copying weights");
    if (!status.ok()) return status;
    const int64_t count = std::min(rows_per_piece, rows - first);
    char* host = piece.memory.as<char>();
    for (int64_t r = 0; r < count; ++r) fill(first + r, host + r * row_bytes);
    status = CudaStatus(cudaMemcpyAsync(memory->as<char>() + first * row_bytes, host,
                                        count * row_bytes, cudaMemcpyHostToDevice, stream_.get()),
                        "copying weights");
    if (status.ok())
      status = CudaStatus(cudaEventRecord(piece.copied.get(), stream_.get()), "copying weights");
    if (!status.ok()) return status;
  }
  const absl::Status status = CudaStatus(cudaStreamSynchronize(stream_.get()), "copying weights");
  if (!status.ok()) return status;
  return memory;
}

absl::StatusOr<Memory> WeightUploader::Stack(absl::Span<const MatrixView> blocks) {
  SLUICE_CHECK(!blocks.empty());
  int64_t rows = 0;
  const int64_t cols = blocks[0].cols, stride = Stride(cols);
  for (const MatrixView& block : blocks) {
    SLUICE_CHECK(block.cols == cols);
    rows += block.rows;
  }
  const MatrixView* block = blocks.data();
  int64_t begin = 0;  // of the block
  return Upload(rows, stride * 2, [&](int64_t row, void* to) {
    while (row - begin >= block->rows) begin += (block++)->rows;
    auto* out = static_cast<uint16_t*>(to);
    RowToBf16(*block, row - begin, out);
    std::fill(out + cols, out + stride, uint16_t{0});
  });
}

absl::StatusOr<Memory> WeightUploader::GateUp(const MatrixView& gate, const MatrixView& up) {
  SLUICE_CHECK(gate.rows == up.rows && gate.cols == up.cols);
  const int64_t stride = Stride(gate.cols);
  const int64_t blocks = (gate.rows + kGateUpBlock - 1) / kGateUpBlock;
  return Upload(2 * blocks * kGateUpBlock, stride * 2, [&](int64_t stored, void* to) {
    const int64_t block = stored / kGateUpBlock;
    const int64_t row = block / 2 * kGateUpBlock + stored % kGateUpBlock;
    auto* out = static_cast<uint16_t*>(to);
    int64_t written = 0;
    if (row < gate.rows) {
      RowToBf16(block % 2 == 0 ? gate : up, row, out);
      written = gate.cols;
    }
    std::fill(out + written, out + stride, uint16_t{0});
  });
}

absl::StatusOr<Memory> WeightUploader::Values(const MatrixView& values) {
  const int64_t size = values.rows * values.cols;
  return Upload(1, Stride(size) * 4, [&](int64_t, void* to) {
    auto* out = static_cast<float*>(to);
    ToFloat(values, out);
    std::fill(out + size, out + Stride(size), 0.0f);
  });
}

}  // namespace sluice::cuda
