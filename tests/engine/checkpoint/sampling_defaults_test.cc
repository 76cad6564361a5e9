#include "engine/checkpoint/sampling_defaults.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace sluice {
namespace {

using ::testing::Optional;
using ::testing::StartsWith;

absl::StatusOr<SamplingDefaults> Parse(absl::string_view json) {
  return ParseSamplingDefaults(json, "generation_config.json");
}

TEST(SamplingDefaultsTest, ReadsWhatTheFileHas) {
  const absl::StatusOr<SamplingDefaults> found =
      Parse(R"({"temperature": 0.75, "top_k": 20, "top_p": 0.5, "min_p": 0.25, "typical_p": 1.0,
                "repetition_penalty": 1.125, "do_sample": true, "max_length": 20, "eos_token_id": 2})");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_THAT(found->temperature, Optional(0.75f));
  EXPECT_THAT(found->top_k, Optional(20));
  EXPECT_THAT(found->top_p, Optional(0.5f));
  EXPECT_THAT(found->min_p, Optional(0.25f));
  EXPECT_THAT(found->typical_p, Optional(1.0f));
  EXPECT_THAT(found->repetition_penalty, Optional(1.125f));
}

TEST(SamplingDefaultsTest, IsSilentWhereTheFileIs) {
  const absl::StatusOr<SamplingDefaults> found = Parse(R"({"temperature": null, "top_k": -1})");
  ASSERT_TRUE(found.ok()) << found.status();
  EXPECT_FALSE(found->temperature.has_value());
  EXPECT_FALSE(found->top_p.has_value());
  EXPECT_THAT(found->top_k, Optional(0)) << "off";
  EXPECT_THAT(Parse(R"({"do_sample": false, "temperature": 0.7})")->temperature, Optional(0.0f));
  EXPECT_FALSE(ReadSamplingDefaults("/no/such/directory")->top_k.has_value());
}

TEST(SamplingDefaultsTest, RefusesByName) {
  for (const char* field : {R"("temperature": -1)", R"("temperature": Infinity)", R"("top_p": 0)",
                            R"("top_p": 1.5)", R"("min_p": "x")", R"("repetition_penalty": 0)",
                            R"("top_k": 1.5)", R"("do_sample": 1)", R"("typical_p": NaN)"}) {
    const std::string json = std::string("{") + field + "}";
    const std::string name = json.substr(2, json.find('"', 2) - 2);
    EXPECT_THAT(std::string(Parse(json).status().message()),
                StartsWith("generation_config.json: " + name))
        << field;
  }
}

}  // namespace
}  // namespace sluice
