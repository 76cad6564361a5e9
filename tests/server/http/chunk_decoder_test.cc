#include "server/http/chunk_decoder.h"

#include <string>

#include "absl/strings/str_cat.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using Event = ChunkDecoder::Event;

struct Result {
  Event end = Event::kMore;  // kMore: there is more to come
  std::string body{};
  size_t used = 0;
};

// Gives `text` in pieces of `piece` bytes, as a connection would.
Result Decode(absl::string_view text, size_t piece = std::string::npos) {
  ChunkDecoder decoder;
  Result out;
  size_t there = 0;
  while (there < text.size()) {
    there = piece == std::string::npos ? text.size() : std::min(there + piece, text.size());
    while (true) {
      size_t used = 0;
      out.end = decoder.Next(text.substr(out.used, there - out.used), &used);
      out.used += used;
      if (out.end == Event::kData) absl::StrAppend(&out.body, decoder.data());
      if (out.end == Event::kEnd || out.end == Event::kFault) return out;
      if (out.end == Event::kMore && used == 0) break;
    }
  }
  return out;
}

TEST(ChunkDecoderTest, DecodesHoweverTheBytesCome) {
  const std::string text =
      "5\r\nhello\r\n1;a=b\r\n \r\nA ; q=\"x y\"\r\n0123456789\r\n0\r\nT: x\r\n\r\nnext";
  for (const size_t piece : {size_t{1}, size_t{2}, size_t{3}, size_t{7}, std::string::npos}) {
    const Result result = Decode(text, piece);
    EXPECT_EQ(result.end, Event::kEnd) << piece;
    EXPECT_EQ(result.body, "hello 0123456789");
    EXPECT_EQ(text.substr(result.used), "next");
  }
}

TEST(ChunkDecoderTest, RefusesWithoutWaitingForMore) {
  for (const absl::string_view bad : {
           "\r\n",         "g\r\n",          "-1\r\n",    "+1\r\n",
           "0x1\r\n",      " 1\r\n",         "1 \r\n",    "1,2\r\n",
           "1\n",          "1\r2",           "1;\x01",    "ffffffffffffffff\r\n",
           "1\r\nab",      "1\r\na\n",       "1\r\na\rb", "0\r\nno field\r\n",
           "0\r\n: x\r\n", "0\r\nA : x\r\n", "0\r\n\n",
       }) {
    EXPECT_EQ(Decode(bad).end, Event::kFault) << bad;
    EXPECT_EQ(Decode(bad, 1).end, Event::kFault) << bad;
  }
}

TEST(ChunkDecoderTest, BoundsALine) {
  EXPECT_EQ(Decode(absl::StrCat("1;", std::string(900, 'x'), "\r\n")).end, Event::kMore);
  EXPECT_EQ(Decode(absl::StrCat("1;", std::string(1100, 'x'))).end, Event::kFault);
  EXPECT_EQ(Decode(std::string(1100, '0')).end, Event::kFault);
}

TEST(ChunkDecoderTest, BoundsFramingInAll) {
  std::string text;
  for (int i = 0; i < 100; ++i) absl::StrAppend(&text, "1;", std::string(900, 'x'), "\r\na\r\n");
  const Result result = Decode(text);
  EXPECT_EQ(result.end, Event::kFault);
  EXPECT_LT(result.used, 20000u);
  std::string plain;  // a sender of single bytes is not at fault
  for (int i = 0; i < 10000; ++i) absl::StrAppend(&plain, "1\r\na\r\n");
  EXPECT_EQ(Decode(plain + "0\r\n\r\n").body.size(), 10000u);
  std::string trailer = "0\r\n";
  for (int i = 0; i < 100; ++i) absl::StrAppend(&trailer, "A: ", std::string(90, 'x'), "\r\n");
  EXPECT_EQ(Decode(trailer).end, Event::kFault);
}

}  // namespace
}  // namespace sluice
