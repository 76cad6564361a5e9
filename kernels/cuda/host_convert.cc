#include "kernels/cuda/host_convert.h"

#include <cmath>
#include <cstring>

namespace sluice::cuda {
namespace {

uint16_t ToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof(bits));
  if ((bits & 0x7fffffffu) > 0x7f800000u) return static_cast<uint16_t>(bits >> 16 | 0x40);
  return static_cast<uint16_t>((bits + 0x7fff + (bits >> 16 & 1)) >> 16);
}

float FromBf16(uint16_t x) {
  const uint32_t bits = uint32_t{x} << 16;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float FromHalf(uint16_t x) {
  const uint32_t sign = uint32_t{x} >> 15 << 31, exponent = x >> 10 & 31, mantissa = x & 1023;
  if (exponent == 0) {
    const float value = std::ldexp(static_cast<float>(mantissa), -24);
    return sign != 0 ? -value : value;
  }
  const uint32_t bits = sign | (exponent == 31 ? 255 : exponent + 112) << 23 | mantissa << 13;
  float value;
  std::memcpy(&value, &bits, sizeof(value));
  return value;
}

float Element(const MatrixView& m, int64_t at) {
  switch (m.dtype) {
    case DType::kF32: {
      float value;
      std::memcpy(&value, static_cast<const char*>(m.data) + at * 4, 4);
      return value;
    }
    case DType::kF16:
    case DType::kBF16: {
      uint16_t bits;
      std::memcpy(&bits, static_cast<const char*>(m.data) + at * 2, 2);
      return m.dtype == DType::kF16 ? FromHalf(bits) : FromBf16(bits);
    }
  }
  return 0.0f;
}

}  // namespace

void RowToBf16(const MatrixView& m, int64_t row, uint16_t* to) {
  if (m.dtype == DType::kBF16) {
    std::memcpy(to, static_cast<const char*>(m.data) + row * m.cols * 2, m.cols * 2);
    return;
  }
  for (int64_t c = 0; c < m.cols; ++c) to[c] = ToBf16(Element(m, row * m.cols + c));
}

void ToFloat(const MatrixView& m, float* to) {
  for (int64_t i = 0; i < m.rows * m.cols; ++i) to[i] = Element(m, i);
}

}  // namespace sluice::cuda
