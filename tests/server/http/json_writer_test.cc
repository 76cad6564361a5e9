#include "server/http/json_writer.h"

#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "gtest/gtest.h"

namespace sluice {
namespace {

std::string Quoted(absl::string_view text) {
  std::string out;
  AppendJsonString(text, &out);
  return out;
}

std::string Number(float value) {
  std::string out;
  AppendJsonFloat(value, &out);
  return out;
}

TEST(JsonWriterTest, EveryByteReadsBack) {
  std::string text;
  for (int c = 0; c < 128; ++c) text.push_back(static_cast<char>(c));
  text += "ä€😀";
  EXPECT_EQ(nlohmann::json::parse(Quoted(text)).get<std::string>(), text);
}

TEST(JsonWriterTest, NoCharacterEndsALine) {
  EXPECT_EQ(Quoted("a\u0085b\u2028\u2029c\u2027\u202A\u0084é"),
            "\"a\\u0085b\\u2028\\u2029c\u2027\u202A\u0084é\"");
  EXPECT_EQ(Quoted("\u2028"), "\"\\u2028\"");
}

TEST(JsonWriterTest, WhatIsNotUtf8BecomesReplacement) {
  EXPECT_EQ(nlohmann::json::parse(Quoted("a\xff\xe2\x82")).get<std::string>(),
            "a\xEF\xBF\xBD\xEF\xBF\xBD");
}

TEST(JsonWriterTest, FloatsReadBackExactly) {
  for (const float value : {0.0f, -0.25f, -15.305867f, -1e-7f, 3.4e38f}) {
    EXPECT_EQ(std::stof(Number(value)), value);
    EXPECT_TRUE(nlohmann::json::accept(Number(value)));
  }
  EXPECT_EQ(Number(-std::numeric_limits<float>::infinity()), "-9999");
  EXPECT_EQ(Number(std::nanf("")), "-9999");
}

}  // namespace
}  // namespace sluice
