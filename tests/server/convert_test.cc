#include "server/convert.h"

#include <string>
#include <vector>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr size_t kSmall = 64;

TEST(GenerateConverter, NumbersMessagesOverTheWholeStream) {
  GenerateConverter converter("id");
  std::vector<TokenEvent> events;
  events.push_back(StartedEvent{7, 42});
  events.push_back(DeltaEvent{1, "text", {5}, {}});
  std::vector<v1::GenerateResponse> out = converter.Convert(std::move(events));
  ASSERT_EQ(out.size(), 2u);
  EXPECT_EQ(out[0].started().request_id(), "id");
  EXPECT_EQ(out[0].started().prompt_tokens(), 7);
  EXPECT_EQ(out[0].started().seed(), 42u);
  EXPECT_EQ(out[1].delta().index(), 1);
  EXPECT_EQ(out[1].delta().text(), "text");
  EXPECT_EQ(out[1].delta().token_ids(0), 5);
  EXPECT_EQ(out[1].sequence_number(), 1u);

  FinishedEvent finished;
  finished.index = 3;
  finished.reason = FinishReason::kStopString;
  finished.matched_stop = "END";
  finished.usage = {10, 0, 20};
  finished.timings.queue = absl::Milliseconds(1500);
  events.clear();
  events.push_back(finished);
  out = converter.Convert(std::move(events));
  ASSERT_EQ(out.size(), 1u);
  EXPECT_EQ(out[0].sequence_number(), 2u);
  const v1::Finished& message = out[0].finished();
  EXPECT_EQ(message.index(), 3);
  EXPECT_EQ(message.reason(), v1::FINISH_REASON_STOP_STRING);
  EXPECT_EQ(message.matched_stop(), "END");
  EXPECT_EQ(message.usage().new_tokens(), 20);
  EXPECT_EQ(message.timings().queue().seconds(), 1);
  EXPECT_EQ(message.timings().queue().nanos(), 500000000);
  EXPECT_FALSE(message.has_status());
  EXPECT_FALSE(message.has_session());
}

TEST(GenerateConverter, AFailedSequenceSaysWhy) {
  GenerateConverter converter("id");
  FinishedEvent finished;
  finished.reason = FinishReason::kError;
  finished.status = absl::InternalError("numeric fault: x");
  std::vector<TokenEvent> events;
  events.push_back(finished);
  const std::vector<v1::GenerateResponse> out = converter.Convert(std::move(events));
  EXPECT_EQ(out[0].finished().reason(), v1::FINISH_REASON_ERROR);
  EXPECT_EQ(out[0].finished().status().code(), 13);
}

TEST(GenerateConverter, LargeDeltasComeInPieces) {
  DeltaEvent delta;
  delta.index = 2;
  for (int i = 0; i < 100; ++i) delta.text += "\xE2\x82\xAC";  // three bytes each
  for (int i = 0; i < 100; ++i) delta.token_ids.push_back(i);
  for (int i = 0; i < 20; ++i)
    delta.logprobs.push_back({i, -1.0f, 1, {{i, -1.0f}, {i + 1, -2.0f}}});
  const DeltaEvent whole = delta;
  std::vector<TokenEvent> events;
  events.push_back(std::move(delta));
  GenerateConverter converter("id", kSmall);
  std::string text;
  std::vector<int32_t> ids;
  int logprobs = 0;
  const std::vector<v1::GenerateResponse> out = converter.Convert(std::move(events));
  EXPECT_GT(out.size(), 10u);
  for (size_t i = 0; i < out.size(); ++i) {
    const v1::Delta& piece = out[i].delta();
    EXPECT_EQ(out[i].sequence_number(), i);
    EXPECT_EQ(piece.index(), 2);
    EXPECT_EQ(piece.text().size() % 3, 0u) << "a character was cut";
    EXPECT_LE(piece.ByteSizeLong(), kSmall + 16);
    text += piece.text();
    ids.insert(ids.end(), piece.token_ids().begin(), piece.token_ids().end());
    logprobs += piece.logprobs_size();
  }
  EXPECT_EQ(text, whole.text);
  EXPECT_EQ(ids, whole.token_ids);
  EXPECT_EQ(logprobs, 20);
}

TEST(ScoreConverter, LogprobsThenSummary) {
  PromptLogprobsEvent logprobs;
  for (int i = 0; i < 50; ++i) logprobs.logprobs.push_back({i, -0.5f, 2, {{9, -0.1f}}});
  ScoreSummaryEvent summary;
  summary.tokens = 51;
  summary.scored_tokens = 50;
  summary.total_logprob = -25.0;
  summary.next = {{3, -0.25f}};
  std::vector<TokenEvent> events;
  events.push_back(StartedEvent{51, 0});
  events.push_back(logprobs);
  events.push_back(summary);
  const std::vector<v1::ScoreResponse> out = ScoreConverter(kSmall).Convert(std::move(events));
  int next = 0;
  for (size_t i = 0; i + 1 < out.size(); ++i) {
    for (const v1::TokenLogprob& logprob : out[i].logprobs().logprobs())
      EXPECT_EQ(logprob.token_id(), next++);
  }
  EXPECT_EQ(next, 50);
  EXPECT_EQ(out.back().summary().scored_tokens(), 50);
  EXPECT_EQ(out.back().summary().next(0).token_id(), 3);
}

TEST(ScoreConverter, StartedIsNoMessage) {
  std::vector<TokenEvent> events;
  events.push_back(StartedEvent{2, 0});
  EXPECT_TRUE(ScoreConverter().Convert(std::move(events)).empty());
}

}  // namespace
}  // namespace sluice
