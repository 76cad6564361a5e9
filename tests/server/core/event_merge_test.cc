#include "server/core/event_merge.h"

#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

DeltaEvent Delta(int32_t index, std::string text, std::vector<int32_t> ids = {}) {
  return {index, std::move(text), std::move(ids), {}};
}

const DeltaEvent& DeltaAt(const std::vector<TokenEvent>& events, size_t i) {
  return std::get<DeltaEvent>(events.at(i));
}

TEST(EventMergeTest, NeighboursOfOneSequenceBecomeOne) {
  std::vector<TokenEvent> events = {StartedEvent{}, Delta(0, "a", {1}), Delta(0, "b", {2, 3})};
  std::get<DeltaEvent>(events[1]).logprobs.resize(1);
  std::get<DeltaEvent>(events[2]).logprobs.resize(2);
  MergeDeltas(&events);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(DeltaAt(events, 1).text, "ab");
  EXPECT_EQ(DeltaAt(events, 1).token_ids, (std::vector<int32_t>{1, 2, 3}));
  EXPECT_EQ(DeltaAt(events, 1).logprobs.size(), 3u);
}

TEST(EventMergeTest, SequencesThatTakeTurnsMergeEach) {
  std::vector<TokenEvent> events = {Delta(0, "a"), Delta(1, "x"), Delta(0, "b"), Delta(1, "y")};
  MergeDeltas(&events);
  ASSERT_EQ(events.size(), 2u);
  EXPECT_EQ(DeltaAt(events, 0).text, "ab");
  EXPECT_EQ(DeltaAt(events, 1).text, "xy");
}

TEST(EventMergeTest, NothingMovesAcrossAnotherEvent) {
  FinishedEvent finished;
  finished.index = 1;
  std::vector<TokenEvent> events = {Delta(0, "a"), finished, Delta(0, "b"), Delta(0, "c")};
  MergeDeltas(&events);
  ASSERT_EQ(events.size(), 3u);
  EXPECT_EQ(DeltaAt(events, 0).text, "a");
  EXPECT_EQ(std::get<FinishedEvent>(events[1]).index, 1);
  EXPECT_EQ(DeltaAt(events, 2).text, "bc");
}

TEST(EventMergeTest, AMergedDeltaHasABound) {
  std::vector<TokenEvent> events;
  std::string all;
  for (int i = 0; i < 100; ++i) {
    events.emplace_back(Delta(0, std::string(1500, static_cast<char>('a' + i % 26))));
    all += DeltaAt(events, i).text;
  }
  MergeDeltas(&events);
  std::string merged;
  for (size_t i = 0; i < events.size(); ++i) {
    EXPECT_LE(static_cast<int64_t>(DeltaAt(events, i).text.size()), kMergedDeltaBytes);
    merged += DeltaAt(events, i).text;
  }
  EXPECT_EQ(events.size(), 3u);
  EXPECT_EQ(merged, all);
}

TEST(EventMergeTest, ASingleLargeDeltaStays) {
  std::vector<TokenEvent> events = {Delta(0, std::string(2 * kMergedDeltaBytes, 'x'))};
  MergeDeltas(&events);
  ASSERT_EQ(events.size(), 1u);
  EXPECT_EQ(static_cast<int64_t>(DeltaAt(events, 0).text.size()), 2 * kMergedDeltaBytes);
}

TEST(EventMergeTest, BytesCountWhatAnEventHolds) {
  const int64_t empty = EventBytes(StartedEvent{});
  EXPECT_EQ(EventBytes(Delta(0, "abcd", {1, 2})), empty + 4 + 8);
  PromptLogprobsEvent prompt;
  prompt.logprobs.resize(10);
  for (TokenLogprob& logprob : prompt.logprobs) logprob.alternatives.resize(3);
  EXPECT_EQ(EventBytes(prompt), empty + static_cast<int64_t>(10 * sizeof(TokenLogprob) +
                                                             30 * sizeof(TokenAlternative)));
  ScoreSummaryEvent summary;
  summary.next.resize(4);
  EXPECT_EQ(EventBytes(summary), empty + static_cast<int64_t>(4 * sizeof(TokenAlternative)));
}

}  // namespace
}  // namespace sluice
