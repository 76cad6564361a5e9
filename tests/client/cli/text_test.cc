#include "client/cli/text.h"

#include <limits>
#include <sstream>
#include <string>

#include "client/cli/input.h"
#include "gtest/gtest.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {
namespace {

TEST(ValidUtf8PrefixTest, TakesAllOfUtf8) {
  const std::string text = "a\xC3\xA9\xE2\x82\xAC\xF0\x9F\x98\x80\xF4\x8F\xBF\xBF\xED\x9F\xBF";
  EXPECT_EQ(ValidUtf8Prefix(text), text.size());
  EXPECT_EQ(ValidUtf8Prefix(""), 0u);
  EXPECT_EQ(ValidUtf8Prefix(std::string(1, '\0')), 1u);
}

TEST(ValidUtf8PrefixTest, StopsAtWhatIsNot) {
  EXPECT_EQ(ValidUtf8Prefix("ab\xFF"), 2u);
  EXPECT_EQ(ValidUtf8Prefix("ab\x80"), 2u);
  EXPECT_EQ(ValidUtf8Prefix("ab\xC0\x80"), 2u);  // not the shortest form
  EXPECT_EQ(ValidUtf8Prefix("ab\xE0\x80\x80"), 2u);
  EXPECT_EQ(ValidUtf8Prefix("ab\xF0\x80\x80\x80"), 2u);
  EXPECT_EQ(ValidUtf8Prefix("ab\xED\xA0\x80"), 2u);      // a surrogate
  EXPECT_EQ(ValidUtf8Prefix("ab\xF4\x90\x80\x80"), 2u);  // above U+10FFFF
  EXPECT_EQ(ValidUtf8Prefix("ab\xE2\x82"), 2u);          // cut short
  EXPECT_EQ(ValidUtf8Prefix("ab\xE2\x28\xA1"), 2u);
}

TEST(ForTerminalTest, LeavesTextAlone) {
  EXPECT_EQ(ForTerminal("caf\xC3\xA9\tone\ntwo \xC2\xA0"), "caf\xC3\xA9\tone\ntwo \xC2\xA0");
}

TEST(ForTerminalTest, DisarmsControls) {
  EXPECT_EQ(ForTerminal("a\x1B[2Jb\r\x7F"), "a\xEF\xBF\xBD[2Jb\xEF\xBF\xBD\xEF\xBF\xBD");
  EXPECT_EQ(ForTerminal("\xC2\x9B"
                        "1m"),
            "\xEF\xBF\xBD"
            "1m");  // the C1 form of ESC [
}

TEST(EscapeControlsTest, KeepsATableRowOnOneLine) {
  EXPECT_EQ(EscapeControls("a\n\t\r\x1B"), "a\\n\\t\\r\\x1b");
}

TEST(WithCommasTest, GroupsByThree) {
  EXPECT_EQ(WithCommas(0), "0");
  EXPECT_EQ(WithCommas(999), "999");
  EXPECT_EQ(WithCommas(1000), "1,000");
  EXPECT_EQ(WithCommas(-1234567), "-1,234,567");
  EXPECT_EQ(WithCommas(std::numeric_limits<int64_t>::min()), "-9,223,372,036,854,775,808");
}

TEST(FormatMillisecondsTest, HasThreeDigits) {
  EXPECT_EQ(FormatMilliseconds(absl::Microseconds(831)), "0.83 ms");
  EXPECT_EQ(FormatMilliseconds(absl::Microseconds(12400)), "12.4 ms");
  EXPECT_EQ(FormatMilliseconds(absl::Milliseconds(1250)), "1,250 ms");
}

TEST(ToJsonTest, UsesTheProtosNamesOnOneLine) {
  v1::GenerateResponse event;
  event.mutable_delta()->set_text("a\nb");
  EXPECT_EQ(
      ToJson(event),
      R"({"sequence_number":"0","delta":{"index":0,"text":"a\nb","token_ids":[],"logprobs":[]}})");
}

TEST(ToJsonTest, SurvivesABrokenAny) {
  v1::GenerateResponse event;
  event.mutable_finished()->mutable_status()->add_details()->set_value("\x08");
  EXPECT_EQ(ToJson(event), R"({"unprintable":"sluice.v1.GenerateResponse"})");
}

class ReadTextTest : public ::testing::Test {
 protected:
  std::istringstream in_{"from stdin"};
  std::ostringstream out_;
  std::ostringstream err_;
  Io io_{in_, out_, err_};
};

TEST_F(ReadTextTest, JoinsArguments) { EXPECT_EQ(*ReadText({"a", "b c"}, "", io_), "a b c"); }

TEST_F(ReadTextTest, ReadsStandardInput) {
  EXPECT_EQ(*ReadText({}, "", io_), "from stdin");
  in_.str("again");
  EXPECT_EQ(*ReadText({"-"}, "", io_), "again");
  in_.str("and again");
  EXPECT_EQ(*ReadText({}, "-", io_), "and again");
}

TEST_F(ReadTextTest, Refuses) {
  EXPECT_EQ(ReadText({"a"}, "file", io_).status().message(),
            "text comes from arguments or from a file, not from both");
  EXPECT_EQ(ReadText({}, "/no/such/file", io_).status().message(),
            "/no/such/file: No such file or directory");
  EXPECT_EQ(ReadText({"ab\xFF"}, "", io_).status().message(), "the text is not UTF-8 at byte 2");
}

}  // namespace
}  // namespace sluice
