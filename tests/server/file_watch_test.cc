#include "server/file_watch.h"

#include <cstdio>
#include <fstream>
#include <string>

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::EndsWith;

class FileWatchTest : public testing::Test {
 protected:
  static void Replace(const std::string& path, const std::string& text) {
    std::ofstream(path + ".new") << text;
    ASSERT_EQ(std::rename((path + ".new").c_str(), path.c_str()), 0);
  }

  const std::string a_ = testing::TempDir() + "/file_watch_a";
  const std::string b_ = testing::TempDir() + "/file_watch_b";
};

TEST_F(FileWatchTest, AChangeCountsOnceItStandsStill) {
  Replace(a_, "1");
  Replace(b_, "1");
  FileWatch watch({a_, b_});
  EXPECT_EQ(watch.Look(), FileState::kUnchanged);
  Replace(b_, "2");
  EXPECT_FALSE(watch.AsSeen());
  EXPECT_EQ(watch.Look(), FileState::kMoving);
  EXPECT_TRUE(watch.AsSeen());
  Replace(a_, "2");
  EXPECT_EQ(watch.Look(), FileState::kMoving);
  EXPECT_EQ(watch.Look(), FileState::kChanged);
  EXPECT_EQ(watch.Look(), FileState::kUnchanged);
}

TEST_F(FileWatchTest, AFileThatGoesIsAChangeAndItsReturnAnother) {
  Replace(a_, "1");
  FileWatch watch({a_});
  ASSERT_EQ(std::rename(a_.c_str(), b_.c_str()), 0);
  EXPECT_EQ(watch.Look(), FileState::kMoving);
  EXPECT_EQ(watch.Look(), FileState::kChanged);
  ASSERT_EQ(std::rename(b_.c_str(), a_.c_str()), 0);
  EXPECT_EQ(watch.Look(), FileState::kMoving);
  EXPECT_EQ(watch.Look(), FileState::kChanged);
}

TEST_F(FileWatchTest, WhatIsTakenIsNoChange) {
  Replace(a_, "1");
  FileWatch watch({a_});
  Replace(a_, "2");
  watch.Take();
  EXPECT_EQ(watch.Look(), FileState::kUnchanged);
}

TEST_F(FileWatchTest, ReadsSmallFiles) {
  Replace(a_, "text");
  EXPECT_EQ(*ReadSmallFile(a_, 4), "text");
  EXPECT_THAT(std::string(ReadSmallFile(a_, 3).status().message()),
              EndsWith("/file_watch_a: larger than 3 bytes"));
  EXPECT_THAT(std::string(ReadSmallFile("/no/such", 3).status().message()),
              EndsWith("/no/such: No such file or directory"));
  EXPECT_FALSE(ReadSmallFile(testing::TempDir(), 3).ok());
}

}  // namespace
}  // namespace sluice
