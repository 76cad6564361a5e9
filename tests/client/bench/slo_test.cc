#include "client/bench/slo.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

// Due at 0, first token after 100 ms, ten more 20 ms apart, ended at 320 ms.
RequestRecord Good() {
  RequestRecord request;
  request.outcome = Outcome::kOk;
  for (int i = 0; i <= 10; ++i) request.messages.push_back({absl::Milliseconds(100 + 20 * i), 1});
  request.ended = absl::Milliseconds(320);
  return request;
}

SloTargets Targets(int first_token_ms, int inter_token_ms, int whole_ms) {
  return {absl::Milliseconds(first_token_ms), absl::Milliseconds(inter_token_ms),
          absl::Milliseconds(whole_ms)};
}

TEST(SloTest, NoTargetIsNone) {
  EXPECT_FALSE(SloTargets().any());
  EXPECT_EQ(Judge({}, Good()), SloVerdict::kMet);
}

TEST(SloTest, EveryTargetMustBeMetAndEqualMeetsIt) {
  EXPECT_EQ(Judge(Targets(100, 20, 320), Good()), SloVerdict::kMet);
  EXPECT_EQ(Judge(Targets(99, 20, 320), Good()), SloVerdict::kMissed);
  EXPECT_EQ(Judge(Targets(100, 19, 320), Good()), SloVerdict::kMissed);
  EXPECT_EQ(Judge(Targets(100, 20, 319), Good()), SloVerdict::kMissed);
}

TEST(SloTest, InterTokenLeavesOutWhatCameWithTheFirst) {
  RequestRecord request = Good();
  request.messages = {{absl::Milliseconds(100), 5}, {absl::Milliseconds(140), 2}};
  EXPECT_EQ(request.inter_token(), absl::Milliseconds(20));
  request.messages.pop_back();
  EXPECT_EQ(request.inter_token(), absl::ZeroDuration());
}

TEST(SloTest, RejectedAndFailedMissed) {
  RequestRecord request = Good();
  request.outcome = Outcome::kRejected;
  EXPECT_EQ(Judge(Targets(1000, 1000, 1000), request), SloVerdict::kMissed);
  request.outcome = Outcome::kFailed;
  EXPECT_EQ(Judge(Targets(1000, 1000, 1000), request), SloVerdict::kMissed);
}

TEST(SloTest, CutOffIsMissedOnlyWhenItsTimeWasUp) {
  RequestRecord request = Good();
  request.outcome = Outcome::kCutOff;
  EXPECT_EQ(Judge(Targets(100, 1, 320), request), SloVerdict::kUndecided);
  EXPECT_EQ(Judge(Targets(100, 20, 319), request), SloVerdict::kMissed);
  request.messages.clear();
  EXPECT_EQ(Judge(Targets(320, 1, 1000), request), SloVerdict::kUndecided);
  EXPECT_EQ(Judge(Targets(319, 1, 1000), request), SloVerdict::kMissed);
}

}  // namespace
}  // namespace sluice
