// Tests which pages slots have: full ones are shared, partial ones are each slot's own.
#include "kernels/page_map.h"

#include "gtest/gtest.h"

namespace sluice {
namespace {

TEST(PageMap, FullPagesAreSharedAndThePartialOneIsCopied) {
  PageMap map;
  map.Allocate(/*slots=*/3, /*max_tokens=*/1000, /*pages=*/10);
  map.Extend(0, 130);
  EXPECT_EQ(map.pages(0).size(), 3u);
  EXPECT_EQ(map.free(), 7);
  const PageMap::PageCopy copy = map.Copy(0, 1);
  EXPECT_EQ(copy.from, map.pages(0)[2]);
  EXPECT_EQ(copy.to, map.pages(1)[2]);
  EXPECT_NE(copy.from, copy.to);
  EXPECT_EQ(map.pages(1)[0], map.pages(0)[0]);
  EXPECT_EQ(map.pages(1)[1], map.pages(0)[1]);
  EXPECT_EQ(map.shared(), 2);
  EXPECT_EQ(map.free(), 6);

  // Each goes on for itself.
  map.Extend(1, 193);
  map.Extend(0, 131);
  EXPECT_EQ(map.pages(0).size(), 3u);
  EXPECT_EQ(map.pages(1).size(), 4u);
  EXPECT_EQ(map.tokens(1), 193);
  map.Clear(0);
  EXPECT_EQ(map.shared(), 0);
  EXPECT_EQ(map.free(), 6);
  map.Clear(1);
  EXPECT_EQ(map.free(), map.total());
}

TEST(PageMap, ACopyOfWholePagesTakesNone) {
  PageMap map;
  map.Allocate(/*slots=*/2, /*max_tokens=*/128, /*pages=*/3);
  map.Extend(0, 128);
  map.Extend(1, 1);
  EXPECT_EQ(map.free(), 0);
  EXPECT_EQ(map.Copy(0, 1).from, -1);  // what the slot had goes first
  EXPECT_EQ(map.free(), 1);
  EXPECT_EQ(map.shared(), 2);
}

}  // namespace
}  // namespace sluice
