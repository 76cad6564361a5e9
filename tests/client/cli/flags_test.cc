#include "client/cli/flags.h"

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::IsEmpty;

class FlagsTest : public ::testing::Test {
 protected:
  FlagsTest() {
    flags_.Section("Some");
    flags_.Add({"top-k", "K", "How many.", ToInt32([this](int32_t value) { top_k_ = value; })});
    flags_.Add(
        {"text", "TEXT", "Words.", ToString([this](std::string t) { text_ = std::move(t); })});
    flags_.Add({"json", "", "As JSON.", ToBool([this](bool value) { json_ = value; })});
    flags_.Add(
        {"limit", "DURATION", "How long.", ToDuration([this](absl::Duration d) { limit_ = d; })});
    flags_.Add({"ids", "IDS", "Which.", ToTokenIds([this](int32_t id) { ids_.push_back(id); })});
    flags_.Add({"p", "P", "How likely.", ToFloat([this](float value) { p_ = value; })});
    flags_.Add({"seed", "N", "Seed.", ToUint64([this](uint64_t value) { seed_ = value; })});
  }

  // The error's message, or empty.
  std::string Parse(const std::vector<std::string>& args) {
    auto rest = flags_.Parse(args);
    if (!rest.ok()) return std::string(rest.status().message());
    rest_ = *std::move(rest);
    return "";
  }

  FlagSet flags_;
  std::vector<std::string> rest_;
  int32_t top_k_ = 0;
  std::string text_;
  std::optional<bool> json_;
  absl::Duration limit_;
  std::vector<int32_t> ids_;
  float p_ = 0;
  uint64_t seed_ = 0;
};

TEST_F(FlagsTest, TakesBothFormsAndMixesWithArguments) {
  EXPECT_EQ(Parse({"one", "--top-k=3", "--text", "a b", "two", "--json"}), "");
  EXPECT_THAT(rest_, ElementsAre("one", "two"));
  EXPECT_EQ(top_k_, 3);
  EXPECT_EQ(text_, "a b");
  EXPECT_EQ(json_, true);
}

TEST_F(FlagsTest, UnderscoresAndOneDashMeanTheSame) {
  EXPECT_EQ(Parse({"--top_k=4"}), "");
  EXPECT_EQ(top_k_, 4);
  EXPECT_EQ(Parse({"-top-k=5"}), "");
  EXPECT_EQ(top_k_, 5);
}

TEST_F(FlagsTest, BooleansCanBeNegated) {
  EXPECT_EQ(Parse({"--nojson"}), "");
  EXPECT_EQ(json_, false);
  EXPECT_EQ(Parse({"--json=true"}), "");
  EXPECT_EQ(json_, true);
  EXPECT_EQ(Parse({"--notext"}), "unknown flag --notext");
  EXPECT_EQ(Parse({"--nojson=true"}), "unknown flag --nojson");
}

TEST_F(FlagsTest, DashesAloneAreArguments) {
  EXPECT_EQ(Parse({"-", "--", "--json"}), "");
  EXPECT_THAT(rest_, ElementsAre("-", "--json"));
  EXPECT_EQ(json_, std::nullopt);
}

TEST_F(FlagsTest, ArgumentsLastLeavesTheRestAlone) {
  const auto rest = flags_.Parse({"--top-k=1", "generate", "--top-k=2"}, FlagSet::Arguments::kLast);
  ASSERT_TRUE(rest.ok());
  EXPECT_THAT(*rest, ElementsAre("generate", "--top-k=2"));
  EXPECT_EQ(top_k_, 1);
}

TEST_F(FlagsTest, SaysWhatIsWrongInOneLine) {
  EXPECT_EQ(Parse({"--colour"}), "unknown flag --colour");
  EXPECT_EQ(Parse({"--top-k"}), "--top-k needs a value");
  EXPECT_EQ(Parse({"--top-k=many"}), "--top-k=many: must be a whole number");
  EXPECT_EQ(Parse({"--top-k=3000000000"}), "--top-k=3000000000: must be a whole number");
  EXPECT_EQ(Parse({"--json=perhaps"}), "--json=perhaps: must be true or false");
  EXPECT_EQ(Parse({"--p=nan"}), "--p=nan: must be a number");
  EXPECT_EQ(Parse({"--p=1e99"}), "--p=1e99: must be a number");
  EXPECT_EQ(Parse({"--seed=-1"}), "--seed=-1: must be a whole number that is not negative");
  EXPECT_EQ(Parse({"--ids=1,two"}), "--ids=1,two: 'two' is not a token id");
  EXPECT_THAT(Parse({"--limit=5"}), HasSubstr("must be a duration above zero"));
  EXPECT_THAT(Parse({"--limit=-5s"}), HasSubstr("must be a duration above zero"));
}

TEST_F(FlagsTest, ReadsNumbersListsAndDurations) {
  EXPECT_EQ(
      Parse({"--ids=1, 2", "--ids=3", "--limit=1m30s", "--p=0.5", "--seed=18446744073709551615"}),
      "");
  EXPECT_THAT(ids_, ElementsAre(1, 2, 3));
  EXPECT_EQ(limit_, absl::Seconds(90));
  EXPECT_EQ(p_, 0.5f);
  EXPECT_EQ(seed_, 18446744073709551615u);
}

TEST_F(FlagsTest, NegativeNumbersAreValues) {
  EXPECT_EQ(Parse({"--top-k", "-3"}), "");
  EXPECT_EQ(top_k_, -3);
}

TEST_F(FlagsTest, EnvironmentFillsIn) {
  const std::map<std::string, const char*> variables = {{"SLUICE_TOP_K", "9"}, {"SLUICE_P", "x"}};
  const auto environment = [&variables](const char* name) {
    const auto found = variables.find(name);
    return found == variables.end() ? nullptr : found->second;
  };
  EXPECT_TRUE(flags_.ParseEnvironment("top-k", environment).ok());
  EXPECT_EQ(top_k_, 9);
  EXPECT_TRUE(flags_.ParseEnvironment("text", environment).ok());
  EXPECT_THAT(text_, IsEmpty());
  EXPECT_EQ(flags_.ParseEnvironment("p", environment).message(), "SLUICE_P=x: must be a number");
}

TEST_F(FlagsTest, HelpShowsEveryFlagWithin100Columns) {
  FlagSet flags;
  flags.Section("Output");
  flags.Add({"json", "", "As JSON.", ToBool([](bool) {})});
  flags.Add({"a-rather-long-flag-name", "SOMETHING",
             std::string(40, 'x') + " " + std::string(40, 'y'), ToBool([](bool) {})});
  EXPECT_EQ(flags.Help(),
            "\nOutput:\n"
            "  --json                      As JSON.\n"
            "  --a-rather-long-flag-name=SOMETHING\n"
            "                              " +
                std::string(40, 'x') +
                "\n"
                "                              " +
                std::string(40, 'y') + "\n");
}

TEST(ParseTokenIdsTest, TakesSpacesCommasAndLines) {
  std::vector<int32_t> ids;
  EXPECT_TRUE(ParseTokenIds("1 2,3\n4\r\n", [&ids](int32_t id) { ids.push_back(id); }).ok());
  EXPECT_THAT(ids, ElementsAre(1, 2, 3, 4));
}

}  // namespace
}  // namespace sluice
