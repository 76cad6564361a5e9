#include "server/core/trace_context.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr char kTrace[] = "4bf92f3577b34da6a3ce929d0e0e4736";
constexpr char kParent[] = "00f067aa0ba902b7";

std::string HeaderOf(const std::string& version, const std::string& flags) {
  return absl::StrCat(version, "-", kTrace, "-", kParent, "-", flags);
}

TEST(TraceContext, AHeaderOfVersion00) {
  const auto span = ParseTraceparent(HeaderOf("00", "01"));
  ASSERT_TRUE(span.has_value());
  EXPECT_TRUE(span->traced());
  EXPECT_EQ(span->TraceId(), kTrace);
  EXPECT_EQ(span->ParentId(), kParent);
  EXPECT_TRUE(span->sampled);
  EXPECT_EQ(span->SpanId(), "0000000000000000");  // the caller of ParseTraceparent chooses it
}

TEST(TraceContext, TheAnswerNamesOurSpanAndPassesNoUnknownFlag) {
  for (const auto& [flags, answered] : {std::pair("00", "00"), std::pair("01", "01"),
                                        std::pair("fe", "00"), std::pair("ff", "01")}) {
    auto span = ParseTraceparent(HeaderOf("00", flags));
    ASSERT_TRUE(span.has_value()) << flags;
    span->span_id = 0x1f;
    EXPECT_EQ(span->Header(), absl::StrCat("00-", kTrace, "-000000000000001f-", answered));
    const auto again = ParseTraceparent(span->Header());
    ASSERT_TRUE(again.has_value());
    EXPECT_EQ(again->parent_id, 0x1fu);
  }
}

TEST(TraceContext, LaterVersionsAreReadAsFarAsThisOneGoes) {
  EXPECT_TRUE(ParseTraceparent(HeaderOf("cc", "01")).has_value());
  EXPECT_TRUE(ParseTraceparent(HeaderOf("01", "01") + "-").has_value());
  EXPECT_TRUE(ParseTraceparent(HeaderOf("01", "01") + "-what-the-future-brings").has_value());
  EXPECT_FALSE(ParseTraceparent(HeaderOf("01", "01") + ".what").has_value());
  EXPECT_FALSE(ParseTraceparent(HeaderOf("ff", "01")).has_value());
}

TEST(TraceContext, WhatCountsAsAbsent) {
  const std::string good = HeaderOf("00", "01");
  for (const std::string& bad : {
           std::string(),
           std::string("00"),
           good.substr(0, 54),
           good + "-",
           good + "-00",
           good + " ",
           " " + good,
           HeaderOf("0", "01") + "0",
           HeaderOf("0x", "01"),
           HeaderOf("00", "0g"),
           absl::StrCat("00-", std::string(32, '0'), "-", kParent, "-01"),
           absl::StrCat("00-", kTrace, "-", std::string(16, '0'), "-01"),
           absl::StrCat("00-4BF92F3577B34DA6A3CE929D0E0E4736-", kParent, "-01"),
           absl::StrCat("00-", kTrace, "-00F067AA0BA902B7-01"),
           absl::StrCat("00_", kTrace, "-", kParent, "-01"),
           std::string(55, '-'),
           std::string(55, '\0'),
           std::string(100'000, '0'),
       }) {
    EXPECT_FALSE(ParseTraceparent(bad).has_value()) << bad.substr(0, 80);
  }
  // Each single character matters.
  for (size_t i = 0; i < good.size(); ++i) {
    std::string broken = good;
    broken[i] = 'X';
    EXPECT_FALSE(ParseTraceparent(broken).has_value()) << broken;
  }
}

TEST(TraceContext, HalfAnIdOfZerosIsAnId) {
  EXPECT_TRUE(ParseTraceparent(absl::StrCat("00-", std::string(31, '0'), "1-", kParent, "-01")));
  EXPECT_TRUE(ParseTraceparent(absl::StrCat("00-1", std::string(31, '0'), "-", kParent, "-01")));
}

}  // namespace
}  // namespace sluice
