#include "server/tls_folder.h"

#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

namespace fs = std::filesystem;
using ::testing::HasSubstr;

std::string Read(const std::string& path) {
  std::ifstream file(path);
  return {std::istreambuf_iterator<char>(file), {}};
}

mode_t ModeOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mode & 07777;
}

int64_t SecondOf(const std::string& path) {
  struct stat info {};
  EXPECT_EQ(stat(path.c_str(), &info), 0) << path;
  return info.st_mtim.tv_sec;
}

class TlsFolderTest : public testing::Test {
 protected:
  void SetUp() override {
    parent_ = testing::TempDir() + "/parent-XXXXXX";
    ASSERT_NE(mkdtemp(parent_.data()), nullptr);
  }
  void TearDown() override { fs::remove_all(parent_); }

  std::unique_ptr<TlsFolder> Create() {
    absl::StatusOr<std::unique_ptr<TlsFolder>> folder = TlsFolder::Create({parent_});
    EXPECT_TRUE(folder.ok()) << folder.status();
    return *std::move(folder);
  }
  int64_t Entries() const {
    return std::distance(fs::directory_iterator(parent_), fs::directory_iterator());
  }

  std::string parent_;
};

TEST_F(TlsFolderTest, PathsLeadToTheNewestSet) {
  const mode_t mask = umask(0);
  std::unique_ptr<TlsFolder> folder = Create();
  for (int i = 1; i <= 5; ++i) {
    const std::string n = std::to_string(i);
    const int64_t before = i == 1 ? 0 : SecondOf(folder->key());
    ASSERT_TRUE(folder->Publish({"cert" + n, "key" + n, "ca" + n, {}}).ok());
    EXPECT_EQ(Read(folder->cert()), "cert" + n);
    EXPECT_EQ(Read(folder->key()), "key" + n);
    EXPECT_EQ(Read(folder->client_ca()), "ca" + n);
    // gRPC compares whole seconds to see whether it read two files of one set.
    EXPECT_GT(SecondOf(folder->key()), before);
    EXPECT_EQ(SecondOf(folder->cert()), SecondOf(folder->key()));
  }
  EXPECT_EQ(ModeOf(folder->path()), 0700u);
  EXPECT_EQ(ModeOf(folder->key()), 0600u);
  EXPECT_EQ(ModeOf(folder->cert()), 0600u);
  umask(mask);
  const auto left = std::distance(fs::directory_iterator(folder->path()), fs::directory_iterator());
  EXPECT_EQ(left, 3) << "the link, the set and the one before";
  folder.reset();
  EXPECT_EQ(Entries(), 0) << "nothing stays after the end";
}

TEST_F(TlsFolderTest, ASetThatCannotBeWrittenLeavesTheOneBefore) {
  const std::unique_ptr<TlsFolder> folder = Create();
  ASSERT_TRUE(folder->Publish({"cert", "key", "", {}}).ok());
  // A folder in the link's place, which no rename of a link can replace.
  ASSERT_TRUE(fs::remove(folder->path() + "/current"));
  ASSERT_TRUE(fs::create_directories(folder->path() + "/current/x"));
  const absl::Status status = folder->Publish({"cert2", "key2", "", {}});
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  EXPECT_FALSE(fs::exists(folder->path() + "/2"));
}

TEST_F(TlsFolderTest, LeftoversOfKilledDaemonsGoAndNoOthers) {
  int ready[2];
  ASSERT_EQ(pipe(ready), 0);
  const pid_t child = fork();
  if (child == 0) {
    const std::unique_ptr<TlsFolder> folder = Create();
    const bool ok = folder->Publish({"cert", "key", "", {}}).ok();
    [[maybe_unused]] const ssize_t written = write(ready[1], ok ? "y" : "n", 1);
    while (true) pause();
  }
  char answer = 0;
  ASSERT_EQ(read(ready[0], &answer, 1), 1);
  ASSERT_EQ(answer, 'y');
  fs::create_directory(parent_ + "/sluiced-session");
  EXPECT_EQ(Entries(), 2);
  {
    const std::unique_ptr<TlsFolder> other = Create();
    EXPECT_EQ(Entries(), 3);
  }
  EXPECT_EQ(Entries(), 2) << "the folder of a daemon that lives stays";
  ASSERT_EQ(kill(child, SIGKILL), 0);
  ASSERT_EQ(waitpid(child, nullptr, 0), child);
  EXPECT_EQ(Entries(), 2);
  { const std::unique_ptr<TlsFolder> other = Create(); }
  EXPECT_EQ(Entries(), 1) << "what is not ours stays";
  close(ready[0]);
  close(ready[1]);
}

TEST_F(TlsFolderTest, TheFirstParentThatTakesOne) {
  absl::StatusOr<std::unique_ptr<TlsFolder>> folder = TlsFolder::Create({"/no/such", parent_});
  ASSERT_TRUE(folder.ok()) << folder.status();
  EXPECT_THAT((*folder)->path(), HasSubstr(parent_));
  const absl::Status status = TlsFolder::Create({"/no/such", "/none/either"}).status();
  EXPECT_THAT(std::string(status.message()), HasSubstr("/no/such: No such file"));
  EXPECT_THAT(std::string(status.message()), HasSubstr("/none/either: No such file"));
}

}  // namespace
}  // namespace sluice
