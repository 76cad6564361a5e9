#include "engine/waiting_queue.h"

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(WaitingQueueTest, PriorityThenAge) {
  Call calls[4];
  const int32_t priorities[4] = {0, 5, 0, 5};
  WaitingQueue queue;
  for (int i = 0; i < 4; ++i) {
    calls[i].id = i + 1;
    calls[i].request.priority = priorities[i];
    queue.Push(&calls[i]);
  }
  for (RequestId expected : {2, 4, 1, 3}) {
    Call* front = queue.Front();
    ASSERT_NE(front, nullptr);
    EXPECT_EQ(front->id, expected);
    queue.Erase(*front);
  }
  EXPECT_TRUE(queue.empty());
  EXPECT_EQ(queue.Front(), nullptr);
}

// Requests of several tenants, waiting.
class TenantsTest : public testing::Test {
 protected:
  Call* Push(const std::string& tenant, int32_t cost, int32_t weight = 1, int32_t priority = 0) {
    calls_.push_back(std::make_unique<Call>());
    Call* call = calls_.back().get();
    call->id = calls_.size();
    call->request.tenant = tenant;
    call->request.tenant_weight = weight;
    call->request.priority = priority;
    call->request.prompt.assign(cost, 1);
    call->request.stop.max_new_tokens = 0;
    queue_.Push(call);
    return call;
  }
  // The tenants of the next `n` that are served, one letter each.
  std::string Serve(int n) {
    std::string served;
    for (int i = 0; i < n && !queue_.empty(); ++i) {
      served += queue_.Front()->request.tenant;
      queue_.Pop();
    }
    return served;
  }

  std::vector<std::unique_ptr<Call>> calls_;
  WaitingQueue queue_;
};

TEST_F(TenantsTest, TakeTurns) {
  for (int i = 0; i < 6; ++i) Push("a", 1024);
  for (int i = 0; i < 3; ++i) Push("b", 1024);
  Push("c", 1024);
  EXPECT_EQ(Serve(10), "abcababaaa");
}

TEST_F(TenantsTest, ATurnIsWorthTokensNotRequests) {
  for (int i = 0; i < 20; ++i) Push("a", 256);
  for (int i = 0; i < 5; ++i) Push("b", 1024);
  EXPECT_EQ(Serve(10), "aaaabaaaab");
}

TEST_F(TenantsTest, ALightOneWaitsForOneTurnOfAFlood) {
  for (int i = 0; i < 1000; ++i) Push("a", 100);
  Serve(17);
  Push("b", 10);
  EXPECT_LE(Serve(1000).find('b'), 1u);
}

TEST_F(TenantsTest, SharesFollowWeights) {
  for (int i = 0; i < 4000; ++i) Push("a", 1 + i % 900, 3);
  for (int i = 0; i < 4000; ++i) Push("b", 1 + i % 1300, 1);
  int64_t tokens[2] = {0, 0};
  for (int i = 0; i < 2000; ++i) {
    const Request& request = queue_.Front()->request;
    tokens[request.tenant == "b"] += ShareCost(request);
    queue_.Pop();
  }
  const double share = static_cast<double>(tokens[0]) / static_cast<double>(tokens[1]);
  EXPECT_NEAR(share, 3.0, 0.05);
}

TEST_F(TenantsTest, ARequestLargerThanManyTurnsIsServedInItsTurn) {
  Push("a", 1 << 20);
  for (int i = 0; i < 2000; ++i) Push("b", 1024);
  const std::string served = Serve(2001);
  EXPECT_NEAR(served.find('a'), 1024, 1);  // as many tokens of the other's as its own
  // All alone it does not wait for turns to pass.
  Push("a", 1 << 20);
  EXPECT_EQ(Serve(1), "a");
}

TEST_F(TenantsTest, PriorityCountsWithinATenant) {
  Push("a", 1000, 1, 0);
  const Call* urgent = Push("a", 1000, 1, 9);
  Push("b", 1000, 1, -9);
  EXPECT_EQ(queue_.Front(), urgent);
  EXPECT_EQ(Serve(3), "aba");
}

TEST_F(TenantsTest, WhoLeavesCostsNothingAndSavesNothing) {
  std::vector<Call*> leaving;
  for (int i = 0; i < 10; ++i) leaving.push_back(Push("a", 1024));
  Push("b", 1024);
  for (const Call* call : leaving) queue_.Erase(*call);
  EXPECT_EQ(queue_.size(), 1u);
  EXPECT_EQ(Serve(1), "b");
  EXPECT_EQ(queue_.Front(), nullptr);
  for (int i = 0; i < 3; ++i) Push("a", 1024);
  for (int i = 0; i < 3; ++i) Push("b", 1024);
  EXPECT_EQ(Serve(6), "ababab");
}

TEST_F(TenantsTest, RandomComingsAndGoings) {
  std::mt19937 rng(7);
  std::vector<Call*> waiting;
  for (int i = 0; i < 20000; ++i) {
    const uint32_t kind = rng() % 3;
    if (kind == 0 || waiting.empty()) {
      waiting.push_back(Push(std::string(1, static_cast<char>('a' + rng() % 5)), rng() % 5000,
                             1 + rng() % 3, static_cast<int32_t>(rng() % 3)));
    } else if (kind == 1) {
      const size_t at = rng() % waiting.size();
      queue_.Erase(*waiting[at]);
      waiting.erase(waiting.begin() + at);
    } else {
      Call* front = queue_.Front();
      EXPECT_EQ(queue_.Front(), front);
      queue_.Pop();
      EXPECT_EQ(std::count(waiting.begin(), waiting.end(), front), 1);
      waiting.erase(std::find(waiting.begin(), waiting.end(), front));
    }
    ASSERT_EQ(queue_.size(), waiting.size());
  }
}

TEST(ShareCostTest, CountsPromptAndWhatMayBeGenerated) {
  Request request;
  request.prompt.assign(10, 1);
  request.n = 3;
  request.stop.max_new_tokens = 100;
  EXPECT_EQ(ShareCost(request), 310);
  request.stop.max_new_tokens = 1 << 20;
  EXPECT_EQ(ShareCost(request), 10 + 3 * 1024);
}

}  // namespace
}  // namespace sluice
