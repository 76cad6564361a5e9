#include "client/bench/lengths.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "absl/status/status.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_split.h"

namespace sluice {
namespace {

constexpr double kMaxSigma = 10;

bool ParseLength(absl::string_view text, int64_t* length) {
  return absl::SimpleAtoi(text, length) && *length >= 0 && *length <= kMaxLength;
}

}  // namespace

absl::StatusOr<Lengths> Lengths::Parse(absl::string_view text) {
  const std::vector<absl::string_view> parts = absl::StrSplit(text, ':');
  int64_t low = 0;
  int64_t high = 0;
  double sigma = 0;
  if (parts.size() == 1 && ParseLength(parts[0], &low)) return Fixed(low);
  if (parts.size() == 3 && parts[0] == "uniform" && ParseLength(parts[1], &low) &&
      ParseLength(parts[2], &high) && low <= high) {
    return Lengths(Kind::kUniform, low, high, 0);
  }
  if (parts.size() == 4 && parts[0] == "lognormal" && ParseLength(parts[1], &low) && low >= 1 &&
      absl::SimpleAtod(parts[2], &sigma) && sigma >= 0 && sigma <= kMaxSigma &&
      ParseLength(parts[3], &high) && low <= high) {
    return Lengths(Kind::kLognormal, low, high, sigma);
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "must be N, uniform:MIN:MAX or lognormal:MEDIAN:SIGMA:MAX, lengths of at most ", kMaxLength));
}

int64_t Lengths::Draw(Random* random) const {
  switch (kind_) {
    case Kind::kFixed:
      return low_;
    case Kind::kUniform:
      return low_ + static_cast<int64_t>(random->Below(static_cast<uint64_t>(high_ - low_ + 1)));
    case Kind::kLognormal:
      break;
  }
  const double length = static_cast<double>(low_) * std::exp(sigma_ * random->Normal());
  return std::llround(std::clamp(length, 1.0, static_cast<double>(high_)));
}

std::string Lengths::Describe(absl::string_view what) const {
  switch (kind_) {
    case Kind::kFixed:
      return absl::StrCat(low_, " ", what);
    case Kind::kUniform:
      return absl::StrCat(low_, " to ", high_, " ", what);
    case Kind::kLognormal:
      break;
  }
  return absl::StrFormat("%s log-normal around %d (sigma %g, at most %d)", what, low_, sigma_,
                         high_);
}

}  // namespace sluice
