#include "engine/tokenizer/text_pipeline.h"

#include <gtest/gtest.h>

#include <string>
#include <vector>

namespace sluice {
namespace {

using Strings = std::vector<std::string>;

Strings Apply(std::vector<TextStep> steps, absl::string_view text,
              PiecePosition position = PiecePosition::kStart) {
  std::vector<TextPiece> pieces = {{text, position}};
  std::deque<std::string> storage;
  TextPipeline(std::move(steps)).Apply(&pieces, &storage);
  Strings texts;
  for (const TextPiece& piece : pieces) texts.emplace_back(piece.text);
  return texts;
}

TEST(TextPipeline, UnicodeForms) {
  const auto form = [](UnicodeForm wanted, absl::string_view text) {
    return Apply({UnicodeStep{wanted}}, text);
  };
  // e with two marks out of order, and a ligature.
  const absl::string_view text = "e\u0301\u0323\ufb01";
  EXPECT_EQ(form(UnicodeForm::kNfc, text), (Strings{"\u1eb9\u0301\ufb01"}));
  EXPECT_EQ(form(UnicodeForm::kNfd, text), (Strings{"e\u0323\u0301\ufb01"}));
  EXPECT_EQ(form(UnicodeForm::kNfkc, text), (Strings{"\u1eb9\u0301fi"}));
  EXPECT_EQ(form(UnicodeForm::kNfkd, text), (Strings{"e\u0323\u0301fi"}));
  EXPECT_EQ(form(UnicodeForm::kNfc, "plain \u00e9"), (Strings{"plain \u00e9"}));
  EXPECT_EQ(Apply({ByteLevelStep()}, " \u00e9"), (Strings{"\u0120\u00c3\u00a9"}));
}

// A text of marks alone, each of a lower class than half of those before it.
TEST(TextPipeline, ManyMarksTakeNoSquareTime) {
  std::string text = "a";
  constexpr int kMarks = 200'000;
  for (int i = 0; i < kMarks; ++i) text += "\u0301";
  for (int i = 0; i < kMarks; ++i) text += "\u0323";
  const Strings normal = Apply({UnicodeStep{UnicodeForm::kNfc}}, text);
  ASSERT_EQ(normal.size(), 1u);
  EXPECT_EQ(normal[0].substr(0, 5), "\u1ea1\u0323");
  EXPECT_EQ(normal[0].size(), 3 + 2 * (2 * size_t{kMarks} - 1));
}

TEST(TextPipeline, Prefix) {
  const PrefixStep always{.prefix = "_"};
  EXPECT_EQ(Apply({always}, "_a"), (Strings{"__a"}));
  EXPECT_EQ(Apply({always}, "a", PiecePosition::kInside), (Strings{"_a"}));
  EXPECT_EQ(Apply({always}, "a", PiecePosition::kContinued), (Strings{"a"}));
  const PrefixStep first{.prefix = "_", .text_start_only = true, .unless_there = true};
  EXPECT_EQ(Apply({first}, "_a"), (Strings{"_a"}));
  EXPECT_EQ(Apply({first}, "a"), (Strings{"_a"}));
  EXPECT_EQ(Apply({first}, "a", PiecePosition::kInside), (Strings{"a"}));
}

TEST(TextPipeline, Split) {
  const auto split = [](SplitBehavior behavior, bool invert = false) {
    return Apply({SplitStep{Pattern::Literal("-"), behavior, invert}}, "-a--b-");
  };
  EXPECT_EQ(split(SplitBehavior::kRemoved), (Strings{"a", "b"}));
  EXPECT_EQ(split(SplitBehavior::kIsolated), (Strings{"-", "a", "-", "-", "b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithPrevious), (Strings{"-", "a-", "-", "b-"}));
  EXPECT_EQ(split(SplitBehavior::kMergedWithNext), (Strings{"-a", "-", "-b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kContiguous), (Strings{"-", "a", "--", "b", "-"}));
  EXPECT_EQ(split(SplitBehavior::kRemoved, true), (Strings{"-", "-", "-", "-"}));
}

TEST(TextPipeline, OnlyTheFirstPieceIsAtTheStart) {
  const std::vector<TextStep> steps = {SplitStep{Pattern::Literal("-"), SplitBehavior::kRemoved},
                                       PrefixStep{.prefix = "_", .text_start_only = true}};
  EXPECT_EQ(Apply(steps, "a-b"), (Strings{"_a", "b"}));
  EXPECT_EQ(Apply(steps, "-b"), (Strings{"b"}));
}

TEST(TextPipeline, SqueezeSpaces) {
  const SqueezeSpacesStep squeeze{"_"};
  EXPECT_EQ(Apply({squeeze}, "  a   b_ "), (Strings{"a b"}));
  EXPECT_EQ(Apply({squeeze}, "   "), Strings());
  EXPECT_EQ(Apply({squeeze}, "  a", PiecePosition::kContinued), (Strings{" a"}));
}

}  // namespace
}  // namespace sluice
