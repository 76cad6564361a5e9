#include "server/http/http_message.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;

TEST(HttpMessageTest, FindsFieldsInAnyCase) {
  HttpHead head;
  head.fields = {{"Host", "x"}, {"A", "1"}, {"a", "2"}};
  EXPECT_EQ(head.Find("host"), "x");
  EXPECT_EQ(head.Find("b"), "");
  EXPECT_THAT(head.FindAll("a"), ElementsAre("1", "2"));
}

TEST(HttpMessageTest, SerializesAHead) {
  HttpReply reply;
  reply.status = 404;
  reply.headers = {{"x-a", "b"}};
  EXPECT_EQ(SerializeHead(reply, HttpBodyFraming::kLength, 3, true, "D"),
            "HTTP/1.1 404 Not Found\r\nDate: D\r\nContent-Type: application/json\r\nx-a: b\r\n"
            "Content-Length: 3\r\nConnection: keep-alive\r\n\r\n");
  EXPECT_EQ(SerializeHead(HttpReply(), HttpBodyFraming::kChunked, 0, false, "D"),
            "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: application/json\r\n"
            "Transfer-Encoding: chunked\r\nConnection: close\r\n\r\n");
  EXPECT_EQ(SerializeHead(HttpReply(), HttpBodyFraming::kUntilClose, 0, false, "D"),
            "HTTP/1.1 200 OK\r\nDate: D\r\nContent-Type: application/json\r\n"
            "Connection: close\r\n\r\n");
}

TEST(HttpMessageTest, WritesChunks) {
  std::string out;
  AppendChunk(std::string(26, 'a'), &out);
  EXPECT_EQ(out, "1a\r\naaaaaaaaaaaaaaaaaaaaaaaaaa\r\n");
}

TEST(HttpMessageTest, WritesDates) {
  EXPECT_EQ(HttpDate(784111777), "Sun, 06 Nov 1994 08:49:37 GMT");
}

TEST(HttpMessageTest, DecodesPercents) {
  EXPECT_EQ(PercentDecode("/a%20b%2Fc%7e"), "/a b/c~");
  EXPECT_EQ(PercentDecode("%00x"), std::string("\0x", 2));
  EXPECT_EQ(PercentDecode("%zz"), std::nullopt);
  EXPECT_EQ(PercentDecode("a%1"), std::nullopt);
  EXPECT_EQ(PercentDecode("%"), std::nullopt);
}

}  // namespace
}  // namespace sluice
