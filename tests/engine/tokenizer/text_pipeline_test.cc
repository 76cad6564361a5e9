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
