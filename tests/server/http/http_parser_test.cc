#include "server/http/http_parser.h"

#include <string>
#include <vector>

#include "absl/strings/str_cat.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using Event = HttpParser::Event;

struct Seen {
  std::vector<std::string> requests{};  // "METHOD path body"
  HttpFault fault{};
  bool more = false;  // a request has begun
};

// Gives `text` in pieces, as a connection would.
Seen Parse(absl::string_view text, size_t piece = std::string::npos) {
  HttpParser parser(1000);
  Seen out;
  std::string body;
  size_t used = 0;
  size_t there = 0;
  while (there < text.size()) {
    there = piece == std::string::npos ? text.size() : std::min(there + piece, text.size());
    while (true) {
      size_t part = 0;
      const Event event = parser.Next(text.substr(used, there - used), &part);
      used += part;
      if (event == Event::kMore) break;
      if (event == Event::kBody) absl::StrAppend(&body, parser.body());
      if (event == Event::kFault) {
        out.fault = parser.fault();
        return out;
      }
      if (event == Event::kHead) {
        body = absl::StrCat(parser.head().method, " ", parser.head().path, " ");
      }
      if (event == Event::kEnd) out.requests.push_back(body);
    }
  }
  out.more = used < text.size() || !parser.in_head();
  return out;
}

std::string Request(absl::string_view fields, absl::string_view body = "") {
  return absl::StrCat("POST /a HTTP/1.1\r\nHost: x\r\n", fields, "\r\n", body);
}

TEST(HttpParserTest, ParsesRequestsInARowHoweverTheBytesCome) {
  const std::string text = absl::StrCat(
      "GET /%41?q=1 HTTP/1.1\r\nhOST: x\r\n\r\n", Request("Content-Length: 5\r\n", "hello"), "\r\n",
      Request("Transfer-Encoding: Chunked\r\n", "3\r\nabc\r\n0\r\n\r\n"),
      "HEAD http://x.example/b HTTP/1.0\r\n\r\n", "OPTIONS * HTTP/1.1\r\nHost:\r\n\r\n");
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{5}, size_t{64}, std::string::npos}) {
    const Seen seen = Parse(text, piece);
    EXPECT_THAT(seen.requests,
                ElementsAre("GET /A ", "POST /a hello", "POST /a abc", "HEAD /b ", "OPTIONS * "))
        << piece;
    EXPECT_EQ(seen.fault.status, 0) << seen.fault.why;
    EXPECT_FALSE(seen.more);
  }
}

TEST(HttpParserTest, KnowsWhetherTheConnectionGoesOn) {
  const auto keeps = [](absl::string_view text) {
    HttpHead head;
    EXPECT_EQ(ParseHttpHead(text, &head).status, 0) << text;
    return head.keep_alive;
  };
  EXPECT_TRUE(keeps("GET / HTTP/1.1\r\nHost: x\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.1\r\nHost: x\r\nConnection: a, CLOSE\r\n\r\n"));
  EXPECT_FALSE(keeps("GET / HTTP/1.0\r\n\r\n"));
  EXPECT_TRUE(keeps("GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n"));
}

TEST(HttpParserTest, KnowsWhoWaitsForPermission) {
  const auto waits = [](absl::string_view text) {
    HttpHead head;
    EXPECT_EQ(ParseHttpHead(text, &head).status, 0) << text;
    return head.expects_continue;
  };
  EXPECT_TRUE(waits(Request("Content-Length: 1\r\nExpect: 100-Continue\r\n")));
  EXPECT_FALSE(waits(Request("Expect: 100-continue\r\n"))) << "there is no body";
  EXPECT_FALSE(waits("POST / HTTP/1.0\r\nContent-Length: 1\r\nExpect: 100-continue\r\n\r\n"));
}

struct Fault {
  std::string text;
  int status;
  const char* why;
};

TEST(HttpParserTest, RefusesWhatCouldBeReadTwoWays) {
  const std::string length = "Content-Length: 3\r\n";
  const std::string chunked = "Transfer-Encoding: chunked\r\n";
  const std::vector<Fault> faults = {
      {Request(length + chunked), 400, "Transfer-Encoding"},
      {Request(chunked + length), 400, "Transfer-Encoding"},
      {Request(length + length), 400, "more than one"},
      {Request("Content-Length: 3, 3\r\n"), 400, "whole number"},
      {Request("Content-Length: -1\r\n"), 400, "whole number"},
      {Request("Content-Length: +1\r\n"), 400, "whole number"},
      {Request("Content-Length: 0x1\r\n"), 400, "whole number"},
      {Request("Content-Length:\r\n"), 400, "whole number"},
      {Request("Content-Length: 18446744073709551616\r\n"), 400, "whole number"},
      {Request("Content-Length : 3\r\n"), 400, "malformed"},
      {"POST / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n", 400, "HTTP/1.0"},
      {Request("Transfer-Encoding: xchunked\r\n"), 501, "chunked"},
      {Request("Transfer-Encoding: xchunked\r\nContent-Length: 3\r\n"), 501, "chunked"},
      {Request("Content-Length: 3\r\nTransfer-Encoding: xchunked\r\n"), 501, "chunked"},
      {Request("Transfer-Encoding: gzip, chunked\r\n"), 501, "chunked"},
      {Request("Transfer-Encoding: chunked, gzip\r\n"), 501, "chunked"},
      {Request("Transfer-Encoding: identity\r\n"), 501, "chunked"},
      {Request("Transfer-Encoding:\r\n"), 501, "chunked"},
      {"GET / HTTP/1.1\r\n\r\n", 400, "no Host"},
      {Request("Host: y\r\n"), 400, "more than one Host"},
      {"GET / HTTP/1.1\r\nHost: a b\r\n\r\n", 400, "no host"},
      {"GET / HTTP/1.1\r\nHost: a/b\r\n\r\n", 400, "no host"},
      {"GET / HTTP/2.0\r\nHost: x\r\n\r\n", 505, "HTTP/1.1"},
      {"GET / HTTP/1.1x\r\nHost: x\r\n\r\n", 400, "malformed"},
      {"GET / http/1.1\r\nHost: x\r\n\r\n", 400, "malformed"},
      {"GET /\r\n\r\n", 400, "malformed"},
      {"GET  / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed"},
      {"G(T / HTTP/1.1\r\nHost: x\r\n\r\n", 400, "malformed"},
      {"GET a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no path"},
      {"GET /\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no URI"},
      {"GET /%2 HTTP/1.1\r\nHost: x\r\n\r\n", 400, "hexadecimal"},
      {"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n", 400, "no host"},
      {Request("A b: c\r\n"), 400, "malformed"},
      {Request(": c\r\n"), 400, "malformed"},
      {Request("no colon\r\n"), 400, "malformed"},
      {Request("Content-Length: 1\r\nExpect: 200-ok\r\n"), 417, "100-continue"},
      {Request(absl::StrCat("A: ", std::string(1000, 'a'), "\r\n")), 431, "too large"},
      {Request(chunked, "x\r\n"), 400, "hexadecimal"},
  };
  for (const Fault& fault : faults) {
    for (const size_t piece : {size_t{1}, std::string::npos}) {
      const Seen seen = Parse(fault.text, piece);
      EXPECT_EQ(seen.fault.status, fault.status) << fault.text << seen.fault.why;
      EXPECT_THAT(seen.fault.why, HasSubstr(fault.why)) << fault.text;
      EXPECT_TRUE(seen.requests.empty());
    }
  }
}

TEST(HttpParserTest, BoundsFields) {
  std::string fields;
  for (int i = 0; i < 101; ++i) fields += "a:b\r\n";
  EXPECT_EQ(Parse(Request(fields)).fault.status, 431);
}

}  // namespace
}  // namespace sluice
