#include "engine/tokenizer/proto_reader.h"

#include <gtest/gtest.h>

#include <string>

namespace sluice {
namespace {

using namespace std::string_literals;

TEST(ProtoReader, EveryWireType) {
  const std::string message = "\x08\x96\x01\x11\x01\0\0\0\0\0\0\0\x1a\x02hi\x25\0\0\x80\x3f"s;
  ProtoReader reader(message);
  ProtoField field;
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.number, 1u);
  EXPECT_EQ(field.AsInt32(), 150);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.wire, ProtoField::Wire::kFixed64);
  EXPECT_EQ(field.value, 1u);
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.bytes, "hi");
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.AsFloat(), 1.0f);
  EXPECT_FALSE(reader.Next(&field));
  EXPECT_FALSE(reader.failed());
}

TEST(ProtoReader, NegativeInt32) {
  const std::string message = "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s;
  ProtoReader reader(message);
  ProtoField field;
  ASSERT_TRUE(reader.Next(&field));
  EXPECT_EQ(field.AsInt32(), -1);
}

TEST(ProtoReader, BrokenMessages) {
  for (const std::string& message :
       {"\x08"s, "\x08\xff"s, "\x0a\x05hi"s, "\x11\x01"s, "\x25\0"s, "\x0b"s, "\x0c"s, "\x0f"s,
        "\x02"s, "\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s,
        "\x0a\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01"s}) {
    ProtoReader reader(message);
    ProtoField field;
    EXPECT_FALSE(reader.Next(&field));
    EXPECT_TRUE(reader.failed());
    EXPECT_FALSE(reader.Next(&field));
  }
}

}  // namespace
}  // namespace sluice
