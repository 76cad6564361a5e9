#include "engine/checkpoint/weight_files.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/checkpoint/test_model.h"

namespace sluice {
namespace {

using testing::HasSubstr;

constexpr char kIndex[] = "model.safetensors.index.json";
constexpr char kFirst[] = "model-00001-of-00002.safetensors";
constexpr char kSecond[] = "model-00002-of-00002.safetensors";

class WeightFilesTest : public testing::Test {
 protected:
  WeightFilesTest() {
    dir_.Write(kFirst, SafetensorsBytes(
                           {{"a", CountingTensor("F32", {2})}, {"b", CountingTensor("F32", {3})}}));
    dir_.Write(kSecond, SafetensorsBytes({{"c", CountingTensor("BF16", {4})}}));
  }

  void WriteIndex(const std::string& weight_map) {
    dir_.Write(kIndex,
               absl::StrCat(R"({"metadata": {"total_size": 1}, "weight_map": )", weight_map, "}"));
  }
  static std::string Map(const std::string& a, const std::string& b, const std::string& c) {
    return absl::StrCat(R"({"a": ")", a, R"(", "b": ")", b, R"(", "c": ")", c, R"("})");
  }
  std::string Error() {
    const auto files = WeightFiles::Open(dir_.path());
    return files.ok() ? "" : std::string(files.status().message());
  }

  TempDir dir_;
};

TEST_F(WeightFilesTest, ReadsShards) {
  WriteIndex(Map(kFirst, kFirst, kSecond));
  const auto files = WeightFiles::Open(dir_.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->root(), kIndex);
  ASSERT_EQ((*files)->tensors().size(), 3u);
  EXPECT_EQ((*files)->tensors().at("b").file->name(), kFirst);
  EXPECT_EQ((*files)->tensors().at("c").file->name(), kSecond);
  EXPECT_EQ((*files)->tensors().at("c").bytes(), 8);
}

TEST_F(WeightFilesTest, TheSingleFileComesFirst) {
  dir_.Write("model.safetensors", SafetensorsBytes({{"d", CountingTensor("F32", {1})}}));
  WriteIndex("3");
  const auto files = WeightFiles::Open(dir_.path());
  ASSERT_TRUE(files.ok()) << files.status();
  EXPECT_EQ((*files)->root(), "model.safetensors");
  EXPECT_EQ((*files)->tensors().count("d"), 1u);
}

TEST_F(WeightFilesTest, NoFileAtAll) {
  EXPECT_EQ(Error(), "model.safetensors: is missing, and so is model.safetensors.index.json");
}

TEST_F(WeightFilesTest, NamesOutsideTheDirectoryAreRefused) {
  for (const char* name :
       {"../x.safetensors", "/etc/x.safetensors", "sub/x.safetensors", "..", "", ".safetensors",
        "x.bin", "a\\\\b.safetensors", "a\\u0000.safetensors", "a\\n.safetensors"}) {
    WriteIndex(Map(kFirst, name, kSecond));
    EXPECT_THAT(Error(), HasSubstr("model.safetensors.index.json: tensor b is in ")) << name;
    EXPECT_THAT(Error(), HasSubstr("must be in a plain file name that ends in .safetensors"))
        << name;
  }
  WriteIndex(R"({"b": 3})");
  EXPECT_THAT(Error(), HasSubstr("tensor b is in 3, must be in a plain file name"));
}

TEST_F(WeightFilesTest, BrokenIndexes) {
  WriteIndex("[]");
  EXPECT_THAT(Error(), HasSubstr("weight_map is missing, must be an object"));
  dir_.Write(kIndex, "{}");
  EXPECT_THAT(Error(), HasSubstr("weight_map is missing, must be an object"));
  dir_.Write(kIndex, "{\"weight_map\":");
  EXPECT_THAT(Error(), HasSubstr("model.safetensors.index.json: is not valid JSON at byte 15"));
  dir_.Write(kIndex, std::string((16 << 20) + 1, ' '));
  EXPECT_THAT(
      Error(),
      HasSubstr("model.safetensors.index.json: has 16777217 bytes, must be at most 16777216"));
}

TEST_F(WeightFilesTest, MissingAndExtraShardsAreNamed) {
  WriteIndex(Map(kFirst, kFirst, "model-00003-of-00003.safetensors"));
  EXPECT_THAT(
      Error(),
      HasSubstr(
          "does not name the shard model-00002-of-00002.safetensors that is in the directory"));
  WriteIndex(Map(kFirst, kSecond, "other.safetensors"));
  EXPECT_THAT(Error(), HasSubstr("names the shard other.safetensors, which is missing"));
}

TEST_F(WeightFilesTest, IndexAndShardsMustAgree) {
  WriteIndex(Map(kFirst, kSecond, kSecond));
  EXPECT_THAT(Error(), HasSubstr("tensor b is not in model-00002-of-00002.safetensors"));
  WriteIndex(absl::StrCat(R"({"a": ")", kFirst, R"(", "c": ")", kSecond, R"("})"));
  EXPECT_THAT(Error(), HasSubstr("does not name the tensor b of model-00001-of-00002.safetensors"));
  WriteIndex(absl::StrCat(R"({"a": ")", kFirst, R"(", "b": ")", kFirst, R"(", "c": ")", kSecond,
                          R"(", "d": ")", kSecond, R"("})"));
  EXPECT_THAT(Error(), HasSubstr("tensor d is not in model-00002-of-00002.safetensors"));
}

TEST_F(WeightFilesTest, ATensorInTwoShards) {
  dir_.Write(kSecond, SafetensorsBytes({{"a", CountingTensor("BF16", {4})},
                                        {"c", CountingTensor("BF16", {4})}}));
  WriteIndex(Map(kFirst, kFirst, kSecond));
  EXPECT_EQ(
      Error(),
      "model-00002-of-00002.safetensors: tensor a is in model-00001-of-00002.safetensors too");
}

TEST_F(WeightFilesTest, ABrokenShardIsNamed) {
  dir_.Write(kSecond, "short");
  WriteIndex(Map(kFirst, kFirst, kSecond));
  EXPECT_EQ(Error(),
            "model-00002-of-00002.safetensors: has 5 bytes, too short for a safetensors file");
}

}  // namespace
}  // namespace sluice
