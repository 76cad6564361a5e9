#include "server/http/head_scanner.h"

#include <string>

#include "gtest/gtest.h"

namespace sluice {
namespace {

constexpr absl::string_view kHead = "GET / HTTP/1.1\r\nHost: x\r\n\r\n";

TEST(HeadScannerTest, FindsTheEndHoweverTheBytesCome) {
  const std::string all = std::string(kHead) + "more";
  for (size_t cut = 0; cut <= all.size(); ++cut) {
    HeadScanner scanner(1000);
    const size_t first = scanner.Scan(absl::string_view(all).substr(0, cut));
    EXPECT_EQ(first, cut >= kHead.size() ? kHead.size() : 0) << cut;
    if (first == 0) {
      EXPECT_EQ(scanner.Scan(all), kHead.size()) << cut;
    }
    EXPECT_EQ(scanner.fault().status, 0);
  }
}

TEST(HeadScannerTest, PassesOneEmptyLineBefore) {
  HeadScanner scanner(1000);
  EXPECT_EQ(scanner.Scan("\r\nGET / HTTP/1.1\r\n\r\n"), 20u);
  EXPECT_EQ(scanner.skipped(), 2u);
  HeadScanner two(1000);
  EXPECT_EQ(two.Scan("\r\n\r\n"), 0u);
  EXPECT_EQ(two.fault().status, 400);
}

TEST(HeadScannerTest, RefusesAsSoonAsItSees) {
  for (const absl::string_view bad : {
           absl::string_view("GET / HTTP/1.1\n"),
           absl::string_view("GET / HTTP/1.1\rH"),
           absl::string_view("GET / HTTP/1.1\r\n "),
           absl::string_view("GET / HTTP/1.1\r\nA: b\r\n\t"),
           absl::string_view("GET /\0", 6),
           absl::string_view("GET / HTTP/1.1\r\nA: \x7f"),
           absl::string_view("GET / HTTP/1.1\r\nA: \x1b"),
           absl::string_view(" "),
       }) {
    HeadScanner scanner(1000);
    EXPECT_EQ(scanner.Scan(bad), 0u);
    EXPECT_EQ(scanner.fault().status, 400) << bad;
    HeadScanner before(1000);
    before.Scan(bad.substr(0, bad.size() - 1));
    EXPECT_EQ(before.fault().status, 0) << "not before the byte at fault: " << bad;
  }
}

TEST(HeadScannerTest, BoundsTheWhole) {
  HeadScanner fits(kHead.size());
  EXPECT_EQ(fits.Scan(kHead), kHead.size());
  HeadScanner larger(kHead.size() - 1);
  EXPECT_EQ(larger.Scan(kHead), 0u);
  EXPECT_EQ(larger.fault().status, 431);
}

}  // namespace
}  // namespace sluice
