#include "server/flags/size.h"

#include <cmath>

#include "absl/strings/ascii.h"
#include "absl/strings/numbers.h"

namespace sluice {
namespace {

constexpr absl::string_view kUnits = "kmgt";

bool IsPlainNumber(absl::string_view text) {
  return !text.empty() && text.find_first_not_of("0123456789.") == absl::string_view::npos;
}

}  // namespace

absl::optional<int64_t> ParseSize(absl::string_view text) {
  int64_t bytes = 0;
  if (absl::SimpleAtoi(text, &bytes)) return bytes;
  size_t end = text.size();
  const auto takes = [&](char c) {
    const bool there = end > 0 && absl::ascii_tolower(text[end - 1]) == c;
    if (there) --end;
    return there;
  };
  if (takes('b')) takes('i');
  if (end == 0) return absl::nullopt;
  const size_t unit = kUnits.find(absl::ascii_tolower(text[end - 1]));
  double number = 0;
  if (unit == absl::string_view::npos || !IsPlainNumber(text.substr(0, end - 1)) ||
      !absl::SimpleAtod(text.substr(0, end - 1), &number)) {
    return absl::nullopt;
  }
  const double value = std::ldexp(number, 10 * (static_cast<int>(unit) + 1));
  if (value >= 0x1p63 || value != std::floor(value)) return absl::nullopt;
  return static_cast<int64_t>(value);
}

}  // namespace sluice
