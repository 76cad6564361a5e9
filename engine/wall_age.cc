#include "engine/wall_age.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"

namespace sluice {
namespace {

constexpr absl::Duration kLargestStep = absl::Hours(1);
constexpr absl::Duration kSkew = absl::Minutes(1);

}  // namespace

WallAge::WallAge(const Clock* clock, std::function<void(const std::string&)> tell)
    : clock_(clock), tell_(std::move(tell)), origin_(clock->WallNow() - clock->Now()) {}

absl::Duration WallAge::AgeOf(absl::Time stamp) {
  newest_ = std::max(newest_, stamp);
  Look();
  return std::max(absl::ZeroDuration(), clock_->WallNow() - stamp);
}

void WallAge::Look() {
  const absl::Time wall = clock_->WallNow();
  const absl::Duration ahead = wall - clock_->Now() - origin_;
  if (absl::AbsDuration(ahead) > kLargestStep) {
    origin_ += ahead;
    if (ahead > absl::ZeroDuration()) {
      Distrust(absl::StrCat("the time of day went ahead by ", absl::FormatDuration(ahead)));
    }
  }
  const bool behind = wall + kSkew < newest_;
  if (behind && !behind_) {
    Distrust(absl::StrCat("the time of day is ", absl::FormatDuration(newest_ - wall),
                          " before the newest session"));
  }
  behind_ = behind;
}

void WallAge::Distrust(const std::string& why) {
  distrusted_ = clock_->Now();
  if (tell_) tell_(why);
}

}  // namespace sluice
