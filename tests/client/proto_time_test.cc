#include "client/proto_time.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(ProtoTimeTest, DurationsSurviveBothWays) {
  for (const absl::Duration duration : {absl::ZeroDuration(), absl::Nanoseconds(1),
                                        absl::Milliseconds(1500), absl::Hours(876000)}) {
    EXPECT_EQ(FromProto(ToProto(duration)), duration);
  }
  EXPECT_EQ(ToProto(absl::Milliseconds(1500)).seconds(), 1);
  EXPECT_EQ(ToProto(absl::Milliseconds(1500)).nanos(), 500'000'000);
}

TEST(ProtoTimeTest, TimesCountFromTheUnixEpoch) {
  google::protobuf::Timestamp time;
  time.set_seconds(1'700'000'000);
  time.set_nanos(5);
  EXPECT_EQ(FromProto(time), absl::FromUnixSeconds(1'700'000'000) + absl::Nanoseconds(5));
}

}  // namespace
}  // namespace sluice
