#include "server/early_calls.h"

#include <gtest/gtest.h>

namespace sluice {
namespace {

TEST(EarlyCallsTest, BoundsWhatNeverArrives) {
  EarlyCalls calls(4);
  const uint64_t one = calls.Number();
  const uint64_t other = calls.Number();
  ASSERT_NE(one, other);
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(calls.Begin(one));
  EXPECT_FALSE(calls.Begin(one));
  EXPECT_FALSE(calls.Begin(one));
  EXPECT_EQ(calls.refused().value(), 2);
  EXPECT_TRUE(calls.Begin(other)) << "another connection has its own";
}

TEST(EarlyCallsTest, CallsThatArriveMakeUpForOthers) {
  EarlyCalls calls(4);
  const uint64_t one = calls.Number();
  for (int i = 0; i < 1000; ++i) {  // every second one never comes whole
    ASSERT_TRUE(calls.Begin(one));
    ASSERT_TRUE(calls.Begin(one));
    calls.Arrive(one);
  }
  for (int i = 0; i < 4; ++i) EXPECT_TRUE(calls.Begin(one)) << "nothing is saved up";
  EXPECT_FALSE(calls.Begin(one));
  calls.Arrive(one);
  EXPECT_TRUE(calls.Begin(one));
}

TEST(EarlyCallsTest, ForgetsTheOldestConnections) {
  EarlyCalls calls(1);
  const uint64_t first = calls.Number();
  EXPECT_TRUE(calls.Begin(first));
  EXPECT_FALSE(calls.Begin(first));
  for (int i = 0; i < 4096; ++i) EXPECT_TRUE(calls.Begin(calls.Number()));
  calls.Arrive(first);  // nobody's any more
  EXPECT_TRUE(calls.Begin(first));
}

}  // namespace
}  // namespace sluice
