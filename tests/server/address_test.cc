#include "server/address.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(Address, ParsesAndPrints) {
  for (const char* text : {"127.0.0.1:50051", "localhost:0", "[::1]:65535"}) {
    const absl::StatusOr<Address> address = ParseAddress(text);
    ASSERT_TRUE(address.ok()) << address.status();
    EXPECT_EQ(FormatAddress(*address), text);
  }
  EXPECT_EQ(ParseAddress("[::1]:1")->host, "::1");
  for (const char* text :
       {"", "host", ":1", "host:", "host:x", "host:-1", "host:65536", "[::1:1"}) {
    EXPECT_FALSE(ParseAddress(text).ok()) << text;
  }
}

}  // namespace
}  // namespace sluice
