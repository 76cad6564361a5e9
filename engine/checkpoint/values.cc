#include "engine/checkpoint/values.h"

#include <algorithm>
#include <bit>
#include <cstring>

namespace sluice {
namespace {

constexpr int64_t kBlock = 4096;  // values between two looks at the result

// An exponent of ones is a NaN or an infinity in each of the formats.
template <typename Bits>
int64_t FirstWithFullExponent(const void* data, int64_t count, Bits exponent) {
  const auto* values = static_cast<const Bits*>(data);
  for (int64_t begin = 0; begin < count; begin += kBlock) {
    const int64_t end = std::min(begin + kBlock, count);
    Bits found = 0;
    for (int64_t i = begin; i < end; ++i) {
      found |= static_cast<Bits>((values[i] & exponent) == exponent);
    }
    if (found == 0) continue;
    for (int64_t i = begin; i < end; ++i) {
      if ((values[i] & exponent) == exponent) return i;
    }
  }
  return -1;
}

float FromBF16(uint16_t bits) { return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16); }

float FromF16(uint16_t bits) {
  const uint32_t sign = static_cast<uint32_t>(bits & 0x8000) << 16;
  const uint32_t exponent = (bits >> 10) & 0x1f;
  const uint32_t mantissa = bits & 0x3ff;
  const float subnormal = static_cast<float>(mantissa) * 0x1p-24f;
  const uint32_t widened = (exponent == 0x1f ? 0xffu : exponent + 112) << 23 | mantissa << 13;
  return std::bit_cast<float>(sign |
                              (exponent == 0 ? std::bit_cast<uint32_t>(subnormal) : widened));
}

}  // namespace

int64_t FirstNonFinite(const void* data, DType dtype, int64_t count) {
  switch (dtype) {
    case DType::kF32:
      return FirstWithFullExponent<uint32_t>(data, count, 0x7f800000);
    case DType::kF16:
      return FirstWithFullExponent<uint16_t>(data, count, 0x7c00);
    case DType::kBF16:
      return FirstWithFullExponent<uint16_t>(data, count, 0x7f80);
  }
  return 0;
}

void ConvertToF32(const void* data, DType dtype, int64_t count, float* out) {
  const auto* values = static_cast<const uint16_t*>(data);
  switch (dtype) {
    case DType::kF32:
      std::memcpy(out, data, count * sizeof(float));
      break;
    case DType::kF16:
      for (int64_t i = 0; i < count; ++i) out[i] = FromF16(values[i]);
      break;
    case DType::kBF16:
      for (int64_t i = 0; i < count; ++i) out[i] = FromBF16(values[i]);
      break;
  }
}

}  // namespace sluice
