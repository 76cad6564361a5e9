#include "server/log.h"

#include <nlohmann/json.hpp>
#include <string>

#include "gtest/gtest.h"

namespace sluice {
namespace {

const absl::Time kTime = absl::FromUnixMillis(1700000000123);

TEST(Log, OneLineOfText) {
  EXPECT_EQ(FormatLogLine(false, LogLevel::kInfo, kTime, "call",
                          {{"code", "OK"}, {"id", "a b"}, {"n", 3}}),
            "2023-11-14T22:13:20.123Z info call code=OK id=\"a b\" n=3");
}

TEST(Log, NothingFromOutsideBreaksALine) {
  const std::string hostile("a\nb\r\x1b[31m\0\"\\\xff=", 14);
  for (const bool json : {false, true}) {
    const std::string line = FormatLogLine(json, LogLevel::kWarn, kTime, "call", {{"id", hostile}});
    for (const char c : line) {
      EXPECT_GE(c, 0x20) << line;
      EXPECT_LT(c, 0x7f) << line;
    }
  }
  const std::string line =
      FormatLogLine(true, LogLevel::kWarn, kTime, "call", {{"id", hostile}, {"n", -1}});
  const nlohmann::json parsed = nlohmann::json::parse(line, nullptr, false);
  ASSERT_TRUE(parsed.is_object()) << line;
  EXPECT_EQ(parsed["id"], "a\\x0ab\\x0d\\x1b[31m\\x00\"\\\\xff=");
  EXPECT_EQ(parsed["level"], "warn");
  EXPECT_EQ(parsed["n"], -1);
}

TEST(Log, LongValuesAreCut) {
  const std::string line =
      FormatLogLine(false, LogLevel::kInfo, kTime, "call", {{"id", std::string(1 << 20, 'x')}});
  EXPECT_LT(line.size(), kMaxLogValueBytes + 100);
}

TEST(Log, AnEmptyValueIsSeen) {
  EXPECT_EQ(FormatLogLine(false, LogLevel::kError, kTime, "e", {{"v", ""}}),
            "2023-11-14T22:13:20.123Z error e v=\"\"");
}

}  // namespace
}  // namespace sluice
