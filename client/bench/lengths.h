// Lengths in tokens: all equal, or drawn.
#ifndef SLUICE_CLIENT_BENCH_LENGTHS_H_
#define SLUICE_CLIENT_BENCH_LENGTHS_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/bench/random.h"

namespace sluice {

// Most tokens of a prompt or an output, here as in the daemon's defaults.
inline constexpr int64_t kMaxLength = 1 << 20;

class Lengths {
 public:
  // "128"; "uniform:MIN:MAX", each equally likely; "lognormal:MEDIAN:SIGMA:MAX", where SIGMA is of
  // the logarithm and MAX takes the place of what exceeds it. An error completes "--flag=text: ".
  static absl::StatusOr<Lengths> Parse(absl::string_view text);
  static Lengths Fixed(int64_t length) { return {Kind::kFixed, length, length, 0}; }

  int64_t Draw(Random* random) const;
  int64_t min() const { return kind_ == Kind::kLognormal ? 1 : low_; }
  int64_t max() const { return high_; }
  // "128 tokens", "32 to 512 tokens", "tokens log-normal around 200 (sigma 1.2, at most 2048)",
  // where "tokens" is `what`.
  std::string Describe(absl::string_view what) const;

 private:
  enum class Kind : uint8_t { kFixed, kUniform, kLognormal };
  Lengths(Kind kind, int64_t low, int64_t high, double sigma)
      : kind_(kind), low_(low), high_(high), sigma_(sigma) {}

  Kind kind_;
  int64_t low_;  // the median of kLognormal
  int64_t high_;
  double sigma_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_LENGTHS_H_
