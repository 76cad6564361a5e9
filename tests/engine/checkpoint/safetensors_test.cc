#include "engine/checkpoint/safetensors.h"

#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/engine/checkpoint/test_model.h"

namespace sluice {
namespace {

using testing::ElementsAre;
using testing::HasSubstr;

absl::StatusOr<TensorMap> Parse(const std::string& header, int64_t data_bytes) {
  return ParseSafetensorsHeader(
      header, kSafetensorsPrefixBytes + static_cast<int64_t>(header.size()) + data_bytes,
      "m.safetensors");
}

TEST(Safetensors, ReadsTensors) {
  const std::string header = R"({"__metadata__": {"format": "pt", "note": "\u00e9"},
      "b.weight": {"dtype": "BF16", "shape": [2, 3], "data_offsets": [4, 16]},
      "scalar": {"data_offsets": [0, 4], "shape": [], "dtype": "F32"},
      "empty": {"dtype": "I64", "shape": [7, 0], "data_offsets": [4, 4]}}   )";
  const auto tensors = Parse(header, 12 + 4);
  ASSERT_TRUE(tensors.ok()) << tensors.status();
  const int64_t data = 8 + static_cast<int64_t>(header.size());
  ASSERT_EQ(tensors->size(), 3u);
  const TensorInfo& b = tensors->at("b.weight");
  EXPECT_EQ(b.dtype, "BF16");
  EXPECT_THAT(b.shape, ElementsAre(2, 3));
  EXPECT_EQ(b.begin, data + 4);
  EXPECT_EQ(b.end, data + 16);
  EXPECT_TRUE(tensors->at("scalar").shape.empty());
  EXPECT_EQ(tensors->at("empty").begin, tensors->at("empty").end);
}

TEST(Safetensors, AFileWithoutTensors) {
  const auto tensors = Parse("{}", 0);
  ASSERT_TRUE(tensors.ok());
  EXPECT_TRUE(tensors->empty());
}

TEST(Safetensors, Prefix) {
  const std::string file = SafetensorsBytes("{}", "");
  EXPECT_EQ(*ParseSafetensorsPrefix(file.substr(0, 8), 10, "m"), 2);
  for (const auto& [prefix, size] :
       {std::pair<std::string, int64_t>{"", 0},
        {file.substr(0, 7), 7},
        {file.substr(0, 8), 9},
        {std::string(8, '\0'), 100},
        {std::string("\1\0\0\0\0\0\0\0", 8), 100},
        {std::string(8, '\xff'), int64_t{1} << 62},
        {std::string("\x01\xe1\xf5\x05\0\0\0\0", 8), int64_t{1} << 40}}) {
    EXPECT_FALSE(ParseSafetensorsPrefix(prefix, size, "m").ok()) << size;
  }
  EXPECT_TRUE(
      ParseSafetensorsPrefix(std::string("\x00\xe1\xf5\x05\0\0\0\0", 8), int64_t{1} << 40, "m")
          .ok());
}

TEST(Safetensors, RefusalsNameTensorAndRule) {
  const struct {
    const char* header;
    int64_t data_bytes;
    const char* message;
  } kCases[] = {
      {"", 0, "header must begin with '{'"},
      {" {}", 0, "header must begin with '{'"},
      {"[]", 0, "header must begin with '{'"},
      {"{", 0, "header is not valid JSON in UTF-8 at byte 2"},
      {"{}x", 0, "header is not valid JSON in UTF-8 at byte 3"},
      {"{} {}", 0, "header is not valid JSON"},
      {R"({"a": 1})", 0, "tensor a is a number, must be an object"},
      {R"({"a": null})", 0, "tensor a is null, must be an object"},
      {R"({"a": []})", 0, "tensor a is a list, must be an object"},
      {R"({"__metadata__": 1})", 0, "__metadata__"},
      {R"({"__metadata__": {"k": 1}})", 0, "__metadata__ holds a number, must hold strings only"},
      {R"({"__metadata__": {"k": {}}})", 0, "__metadata__ holds an object, must hold strings only"},
      {R"({"__metadata__": {}, "__metadata__": {}})", 0, "__metadata__ appears twice"},
      {R"({"a": {"dtype": "F32", "shape": [1]}})", 4,
       "tensor a must have dtype, shape and data_offsets"},
      {R"({"a": {}})", 0, "tensor a must have dtype, shape and data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0]}})", 4,
       "tensor a must have two data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 4, 4]}})", 4,
       "must have two data_offsets"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": {}}})", 4,
       "has an object for its data_offsets"},
      {R"({"a": {"dtype": "F32", "dtype": "F32"}})", 4, "tensor a has dtype twice"},
      {R"({"a": {"dtype": "F32", "strides": [1]}})", 4,
       "tensor a has the unknown field \"strides\""},
      {R"({"a": {"dtype": "F33"}})", 4, "tensor a has the unknown dtype \"F33\""},
      {R"({"a": {"dtype": 3}})", 4, "tensor a has a number for its dtype"},
      {R"({"a": {"dtype": ["F32"]}})", 4, "tensor a has a list for its dtype"},
      {R"({"a": {"shape": "4"}})", 4, "tensor a has a string for its shape"},
      {R"({"a": {"shape": [-1]}})", 4, "tensor a has a negative number in its shape"},
      {R"({"a": {"shape": [1.0]}})", 4,
       "tensor a has a number that is not an integer below 2^64 in its shape"},
      {R"({"a": {"shape": [[1]]}})", 4, "tensor a has a list in its shape"},
      {R"({"a": {"shape": [null]}})", 4, "tensor a has null in its shape"},
      {R"({"a": {"shape": [9223372036854775808]}})", 4, "must be below 2^63"},
      {R"({"a": {"shape": [1, 1, 1, 1, 1, 1, 1, 1, 1]}})", 4,
       "tensor a has more than 8 dimensions"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [4, 0]}})", 4, "in the wrong order"},
      {R"({"a": {"dtype": "F32", "shape": [1], "data_offsets": [0, 8]}})", 4,
       "beyond the 4 bytes of data"},
      {R"({"a": {"dtype": "F32", "shape": [3], "data_offsets": [0, 8]}})", 8,
       "its shape [3] takes 12 bytes"},
      {R"({"a": {"dtype": "F64", "shape": [4611686018427387904, 4], "data_offsets": [0, 8]}})", 8,
       "tensor a has shape [4611686018427387904, 4], whose size overflows"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [1, 5]}})", 5,
       "begins at data offset 1"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
           "b": {"dtype": "U8", "shape": [4], "data_offsets": [2, 6]}})",
       6, "tensor b begins at data offset 2"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
           "b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})",
       4, "they overlap"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
           "b": {"dtype": "U8", "shape": [4], "data_offsets": [6, 10]}})",
       10, "there is a hole"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]},
           "a": {"dtype": "U8", "shape": [4], "data_offsets": [4, 8]}})",
       8, "tensor a appears twice"},
      {R"({"a": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})", 5,
       "has 1 bytes after the last tensor"},
      {"{}", 1, "has 1 bytes after the last tensor"},
  };
  for (const auto& c : kCases) {
    const auto tensors = Parse(c.header, c.data_bytes);
    ASSERT_FALSE(tensors.ok()) << c.header;
    const std::string message(tensors.status().message());
    EXPECT_THAT(message, HasSubstr(c.message)) << c.header;
    EXPECT_EQ(message.rfind("m.safetensors: ", 0), 0u) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
  }
}

TEST(Safetensors, ZeroSizedTensorsDoNotHideAHole) {
  EXPECT_FALSE(Parse(R"({"a": {"dtype": "U8", "shape": [0], "data_offsets": [3, 3]},
                         "b": {"dtype": "U8", "shape": [4], "data_offsets": [0, 4]}})",
                     4)
                   .ok());
  // An overflowing product stays one when a later extent is 0.
  EXPECT_FALSE(
      Parse(R"({"a": {"dtype": "F64", "shape": [9223372036854775807, 0], "data_offsets": [0, 0]}})",
            0)
          .ok());
}

}  // namespace
}  // namespace sluice
