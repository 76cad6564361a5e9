#include "kernels/cpu/pack.h"

#include <algorithm>
#include <array>
#include <bit>
#include <cstring>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

// The rows of one panel in the checkpoint; null: a row of zeros.
using PanelSource = std::array<const char*, kPanelRows>;

template <class T>
void PackPanel(const PanelSource& rows, int64_t k, T* out) {
  for (int64_t r = 0; r < kPanelRows; ++r) {
    if (rows[r] == nullptr) {
      for (int64_t i = 0; i < k; ++i) out[i * kPanelRows + r] = 0;
    }
  }
  // Sixteen columns at a time: source and destination lines both stay in L1.
  constexpr int64_t kStep = 16;
  for (int64_t begin = 0; begin < k; begin += kStep) {
    const int64_t end = std::min(begin + kStep, k);
    for (int64_t r = 0; r < kPanelRows; ++r) {
      if (rows[r] == nullptr) continue;
      for (int64_t i = begin; i < end; ++i) {
        // A file's tensors are aligned to no more than a byte.
        std::memcpy(&out[i * kPanelRows + r], rows[r] + i * sizeof(T), sizeof(T));
      }
    }
  }
}

const char* RowOf(const MatrixView& view, int64_t row) {
  return static_cast<const char*>(view.data) + row * view.cols * DTypeBytes(view.dtype);
}

// `source(panel)` gives the rows of a panel.
template <class Source>
absl::StatusOr<PackedMatrix> Pack(int64_t panels, DType dtype, int64_t n, int64_t k,
                                  ThreadPool* pool, const Source& source) {
  const int64_t panel_bytes = PanelBytes(k, dtype);
  absl::StatusOr<HostBuffer> buffer = HostBuffer::Allocate(panels, panel_bytes, "weights");
  if (!buffer.ok()) return buffer.status();
  char* data = static_cast<char*>(buffer->data());
  pool->ParallelFor(panels, [&](int64_t panel, int) {
    char* out = data + panel * panel_bytes;
    if (dtype == DType::kF32) {
      PackPanel(source(panel), k, reinterpret_cast<uint32_t*>(out));
    } else {
      PackPanel(source(panel), k, reinterpret_cast<uint16_t*>(out));
    }
  });
  return PackedMatrix{std::move(*buffer), {data, dtype, n, k}};
}

float HalfToFloat(uint16_t h) {
  const uint32_t sign = uint32_t{h & 0x8000u} << 16;
  const uint32_t exponent = (h >> 10) & 31, mantissa = h & 0x3ff;
  if (exponent == 31) return std::bit_cast<float>(sign | 0x7f800000u | mantissa << 13);
  if (exponent != 0) return std::bit_cast<float>(sign | (exponent + 112) << 23 | mantissa << 13);
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  return sign != 0 ? -subnormal : subnormal;
}

float ToFloat(uint32_t x, DType dtype) {
  switch (dtype) {
    case DType::kF32:
      return std::bit_cast<float>(x);
    case DType::kF16:
      return HalfToFloat(static_cast<uint16_t>(x));
    case DType::kBF16:
      return std::bit_cast<float>(x << 16);
  }
  return 0.0f;
}

void ConvertStrided(const char* data, DType dtype, int64_t stride, int64_t count, float* out) {
  const int64_t bytes = DTypeBytes(dtype);
  for (int64_t i = 0; i < count; ++i) {
    uint32_t x = 0;
    std::memcpy(&x, data + i * stride * bytes, bytes);  // little-endian
    out[i] = ToFloat(x, dtype);
  }
}

}  // namespace

absl::StatusOr<PackedMatrix> PackRows(absl::Span<const MatrixView> blocks, ThreadPool* pool) {
  if (blocks.empty()) return absl::InvalidArgumentError("matrix: no blocks");
  int64_t n = 0;
  for (const MatrixView& block : blocks) {
    if (block.dtype != blocks[0].dtype || block.cols != blocks[0].cols) {
      return absl::InvalidArgumentError(
          "matrix: blocks that are stacked must have one dtype and one width");
    }
    n += block.rows;
  }
  const auto row = [&](int64_t r) -> const char* {
    for (const MatrixView& block : blocks) {
      if (r < block.rows) return RowOf(block, r);
      r -= block.rows;
    }
    return nullptr;
  };
  return Pack(PanelCount(n), blocks[0].dtype, n, blocks[0].cols, pool, [&](int64_t panel) {
    PanelSource rows;
    for (int64_t r = 0; r < kPanelRows; ++r) rows[r] = row(panel * kPanelRows + r);
    return rows;
  });
}

absl::StatusOr<PackedMatrix> PackGateUp(const MatrixView& gate, const MatrixView& up,
                                        ThreadPool* pool) {
  if (gate.dtype != up.dtype || gate.rows != up.rows || gate.cols != up.cols) {
    return absl::InvalidArgumentError("gate and up: must have one dtype and one shape");
  }
  const int64_t panels = (gate.rows + kPanelPairs - 1) / kPanelPairs;
  return Pack(panels, gate.dtype, 2 * gate.rows, gate.cols, pool, [&](int64_t panel) {
    PanelSource rows{};
    for (int64_t r = 0; r < kPanelPairs && panel * kPanelPairs + r < gate.rows; ++r) {
      rows[r] = RowOf(gate, panel * kPanelPairs + r);
      rows[kPanelPairs + r] = RowOf(up, panel * kPanelPairs + r);
    }
    return rows;
  });
}

void UnpackRow(const Linear& w, int64_t row, float* out) {
  const int64_t bytes = DTypeBytes(w.dtype);
  const char* first = static_cast<const char*>(w.data) +
                      (row / kPanelRows * w.k * kPanelRows + row % kPanelRows) * bytes;
  ConvertStrided(first, w.dtype, kPanelRows, w.k, out);
}

void ConvertToFloat(const void* data, DType dtype, int64_t count, float* out) {
  ConvertStrided(static_cast<const char*>(data), dtype, 1, count, out);
}

}  // namespace sluice
