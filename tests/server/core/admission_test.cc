#include "server/core/admission.h"

#include <algorithm>
#include <optional>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_clock.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;

TEST(AdmissionTest, NamesTheBoundThatWasHit) {
  FakeClock clock;
  Admission admission({.max_streams = 3, .max_queued_requests = 2, .max_queued_tokens = 100},
                      &clock);
  absl::StatusOr<Permit> a = admission.Admit(60);
  ASSERT_TRUE(a.ok());
  absl::StatusOr<Permit> refused = admission.Admit(41);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("prompt tokens"));

  absl::StatusOr<Permit> b = admission.Admit(40);
  ASSERT_TRUE(b.ok());
  refused = admission.Admit(1);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("requests are queued"));

  a->LeaveQueue();
  b->LeaveQueue();
  absl::StatusOr<Permit> c = admission.Admit(1);
  ASSERT_TRUE(c.ok());
  refused = admission.Admit(1);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("streams are open"));
  EXPECT_EQ(admission.permits(), 3);
  for (const AdmissionRefusal why : {AdmissionRefusal::kStreams, AdmissionRefusal::kQueuedRequests,
                                     AdmissionRefusal::kQueuedTokens}) {
    EXPECT_EQ(admission.refused(why), 1u) << static_cast<int>(why);
  }
}

TEST(AdmissionTest, OnePromptIsLetInHoweverLong) {
  FakeClock clock;
  Admission admission({.max_queued_tokens = 100}, &clock);
  absl::StatusOr<Permit> alone = admission.Admit(int64_t{1} << 40);
  EXPECT_TRUE(alone.ok());
  EXPECT_TRUE(absl::IsResourceExhausted(admission.Admit(1).status()));
}

TEST(AdmissionTest, APermitIsGivenBackOnce) {
  FakeClock clock;
  Admission admission({}, &clock);
  {
    Permit permit = std::move(*admission.Admit(5));
    Permit moved = std::move(permit);
    permit = Permit();
    EXPECT_EQ(admission.permits(), 1);
    EXPECT_EQ(admission.queued_tokens(), 5);
    moved.LeaveQueue();
    moved.LeaveQueue();
    EXPECT_EQ(admission.queued_requests(), 0);
    EXPECT_EQ(admission.queued_tokens(), 0);
    moved.Release();
    EXPECT_EQ(admission.permits(), 0);
    moved = std::move(*admission.Admit(7));
    EXPECT_EQ(admission.queued_tokens(), 7);
  }
  EXPECT_EQ(admission.permits(), 0);
  EXPECT_EQ(admission.queued_requests(), 0);
  EXPECT_EQ(admission.queued_tokens(), 0);
}

TEST(AdmissionTest, ADrainRefuses) {
  FakeClock clock;
  Admission admission({}, &clock);
  absl::StatusOr<Permit> before = admission.Admit(1);
  admission.Drain();
  EXPECT_TRUE(absl::IsUnavailable(admission.Admit(1).status()));
  EXPECT_EQ(admission.permits(), 1);
}

TEST(AdmissionTest, ThreadsNeverExceedTheBound) {
  FakeClock clock;
  Admission admission({.max_streams = 3}, &clock);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&admission] {
      for (int i = 0; i < 2000; ++i) {
        absl::StatusOr<Permit> permit = admission.Admit(1);
        EXPECT_LE(admission.permits(), 3);
        if (permit.ok() && i % 2 == 0) permit->LeaveQueue();
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(admission.permits(), 0);
  EXPECT_EQ(admission.queued_requests(), 0);
}

TEST(AdmissionTest, ATenantsBoundsAreItsOwn) {
  FakeClock clock;
  Admission admission({.max_streams = 3, .max_queued_requests = 3, .max_queued_tokens = 100},
                      &clock);
  const Tenant a{"a", {.max_streams = 2, .max_queued_requests = 1, .max_queued_tokens = 50}};
  const Tenant b{"b", {}};
  absl::StatusOr<Permit> first = admission.Admit(10, a);
  ASSERT_TRUE(first.ok());
  absl::StatusOr<Permit> refused = admission.Admit(1, a);
  EXPECT_TRUE(absl::IsResourceExhausted(refused.status()));
  EXPECT_THAT(std::string(refused.status().message()),
              HasSubstr("too many of your requests are queued, the limit is 1"));
  absl::StatusOr<Permit> other = admission.Admit(60, b);
  EXPECT_TRUE(other.ok());

  first->LeaveQueue();
  absl::StatusOr<Permit> second = admission.Admit(30, a);
  ASSERT_TRUE(second.ok());
  refused = admission.Admit(1, a);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("your streams are open"));
  // Everybody's bound stands above a tenant's.
  refused = admission.Admit(1, b);
  EXPECT_THAT(std::string(refused.status().message()), HasSubstr("too many streams are open"));
  EXPECT_EQ(admission.active_tenants(), 2);
  first->Release();
  second->Release();
  EXPECT_EQ(admission.active_tenants(), 1);
  other->Release();
  EXPECT_EQ(admission.active_tenants(), 0);
  EXPECT_EQ(admission.queued_tokens(), 0);
}

TEST(AdmissionTest, SaysWhenToComeBackByWhatRequestsTookOfLate) {
  FakeClock clock;
  Admission admission({.max_streams = 100, .max_queued_requests = 1}, &clock);
  for (int i = 0; i < 100; ++i) {
    Permit permit = std::move(*admission.Admit(1));
    clock.Advance(absl::Seconds(2));
  }
  Permit holder = std::move(*admission.Admit(1));
  absl::Duration shortest = absl::InfiniteDuration();
  absl::Duration longest;
  for (int i = 0; i < 100; ++i) {
    absl::Duration delay;
    EXPECT_TRUE(absl::IsResourceExhausted(admission.Admit(1, {}, &delay).status()));
    shortest = std::min(shortest, delay);
    longest = std::max(longest, delay);
  }
  // Spread over 1 to 3 seconds.
  EXPECT_GE(shortest, absl::Milliseconds(990));
  EXPECT_LE(longest, absl::Milliseconds(3010));
  EXPECT_GT(longest - shortest, absl::Seconds(1));
}

}  // namespace
}  // namespace sluice
