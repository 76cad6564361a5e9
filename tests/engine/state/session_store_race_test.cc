// Two daemons on one directory, at every moment at which one can come between two calls of the
// other; and a process that ends before any of its calls.
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <functional>

#include "absl/strings/str_cat.h"
#include "engine/state/session_store.h"
#include "tests/engine/state/small_state.h"
#include "tests/fakes/fake_files.h"

namespace sluice {
namespace {

// Lets something happen before each call, which it gets the number of, from 1.
class Interrupted : public Files {
 public:
  Interrupted(Files* files, std::function<void(int64_t)> before)
      : files_(files), before_(std::move(before)) {}

  absl::Status MakeDir(const std::string& path) override { return Next()->MakeDir(path); }
  absl::StatusOr<std::vector<std::string>> List(const std::string& dir) override {
    return Next()->List(dir);
  }
  absl::StatusOr<int64_t> Size(const std::string& path) override { return Next()->Size(path); }
  absl::StatusOr<FileStamp> Stamp(const std::string& path) override { return Next()->Stamp(path); }
  absl::Status SetTime(const std::string& path, int64_t time_us) override {
    return Next()->SetTime(path, time_us);
  }
  absl::Status ReadAt(const std::string& path, int64_t offset, absl::Span<char> out) override {
    return Next()->ReadAt(path, offset, out);
  }
  absl::Status WriteNew(const std::string& path,
                        absl::Span<const absl::string_view> pieces) override {
    return Next()->WriteNew(path, pieces);
  }
  absl::Status SyncDir(const std::string& dir) override { return Next()->SyncDir(dir); }
  absl::Status Link(const std::string& from, const std::string& to) override {
    return Next()->Link(from, to);
  }
  absl::Status Rename(const std::string& from, const std::string& to) override {
    return Next()->Rename(from, to);
  }
  absl::Status Remove(const std::string& path) override { return Next()->Remove(path); }
  absl::StatusOr<std::unique_ptr<Lock>> TryLock(const std::string& path) override {
    return Next()->TryLock(path);
  }
  absl::StatusOr<std::unique_ptr<ByteLocks>> OpenLocks(const std::string& path) override {
    return Next()->OpenLocks(path);
  }

 private:
  Files* Next() {
    before_(++calls_);
    return files_;
  }

  Files* const files_;
  const std::function<void(int64_t)> before_;
  int64_t calls_ = 0;
};

absl::Status Put(SessionStore* store, uint64_t generation, int seed) {
  SessionRecord record = SmallRecord("s", generation, seed);
  const StateData data = SmallData(seed);
  return store->PutRecord(&record, &data, nullptr);
}

// One daemon writes generation 2 while the other, before its n-th call, writes `others` generations
// or deletes the session.
void Race(int others, int64_t n, bool* interrupted) {
  SCOPED_TRACE(absl::StrCat(others, " generations before call ", n));
  FakeFiles files;
  auto other = *SessionStore::Open(&files, "/d", SmallSpec(), {true, "other"});
  ASSERT_TRUE(Put(other.get(), 1, 1).ok());
  bool armed = false;
  int64_t calls = 0;
  Interrupted between(&files, [&](int64_t) {
    if (!armed || ++calls != n) return;
    if (others == 0) {
      EXPECT_TRUE(other->Delete("tenant/..", "s", 0).ok());
    }
    for (int i = 0; i < others; ++i) {
      const auto now = other->ReadRecord("tenant/..", "s");
      ASSERT_TRUE(now.ok()) << now.status();
      EXPECT_TRUE(Put(other.get(), now->generation + 1, 100 + i).ok());
    }
  });
  auto mine = *SessionStore::Open(&between, "/d", SmallSpec(), {true, "mine"});
  armed = true;
  const absl::Status status = Put(mine.get(), 2, 50);
  armed = false;
  *interrupted = calls >= n;
  const auto now = mine->ReadRecord("tenant/..", "s");
  if (*interrupted && others == 0) {
    EXPECT_TRUE(status.ok() || absl::IsNotFound(status) || absl::IsAborted(status)) << status;
    EXPECT_TRUE(absl::IsNotFound(now.status())) << now.status();
    return;
  }
  ASSERT_TRUE(now.ok()) << now.status();
  EXPECT_TRUE(status.ok() || absl::IsAborted(status)) << status;
  // Mine is among those that follow each other if and only if I was told so.
  const int followed = *interrupted ? others : 0;
  EXPECT_EQ(static_cast<int>(now->generation), 1 + followed + (status.ok() ? 1 : 0)) << status;
  const int last = *interrupted ? 100 + others - 1 : 50;
  EXPECT_EQ(now->info.last_token, last);
  const auto data = mine->ReadState(*now);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(*data, SmallData(last));
}

TEST(SessionStoreRaceTest, AnotherDaemonBetweenAnyTwoCalls) {
  for (int others = 0; others <= 3; ++others) {
    int64_t n = 1;
    for (bool interrupted = true; interrupted; ++n) {
      ASSERT_LT(n, 100);
      Race(others, n, &interrupted);
    }
    EXPECT_GT(n, 10);
  }
}

// A child process writes generation after generation and tells through a pipe what was
// acknowledged, until it ends, without a goodbye, before its n-th call.
void Die(const std::string& dir, int64_t n, bool* died) {
  SCOPED_TRACE(absl::StrCat("dead before call ", n));
  int told[2];
  ASSERT_EQ(pipe(told), 0);
  const pid_t child = fork();
  ASSERT_GE(child, 0);
  if (child == 0) {
    Interrupted mortal(PosixFiles(), [n](int64_t call) {
      if (call == n) _exit(9);
    });
    auto store = SessionStore::Open(&mortal, dir, SmallSpec());
    if (!store.ok()) _exit(3);
    for (char generation = 1; generation <= 3; ++generation) {
      if (!Put(store->get(), static_cast<uint64_t>(generation), generation).ok()) _exit(3);
      if (write(told[1], &generation, 1) != 1) _exit(3);
    }
    _exit(0);
  }
  close(told[1]);
  char acknowledged = 0;
  for (char each = 0; read(told[0], &each, 1) == 1;) acknowledged = each;
  close(told[0]);
  int status = 0;
  ASSERT_EQ(waitpid(child, &status, 0), child);
  ASSERT_TRUE(WIFEXITED(status) && (WEXITSTATUS(status) == 9 || WEXITSTATUS(status) == 0))
      << status;
  *died = WEXITSTATUS(status) == 9;

  const auto store = SessionStore::Open(PosixFiles(), dir, SmallSpec());
  ASSERT_TRUE(store.ok()) << store.status();
  const auto record = (*store)->ReadRecord("tenant/..", "s");
  if (acknowledged == 0 && absl::IsNotFound(record.status())) return;
  ASSERT_TRUE(record.ok()) << record.status();
  EXPECT_GE(record->info.last_token, acknowledged);
  EXPECT_LE(record->info.last_token, acknowledged + 1);
  const auto data = (*store)->ReadState(*record);
  ASSERT_TRUE(data.ok()) << data.status();
  EXPECT_EQ(*data, SmallData(record->info.last_token));
  EXPECT_TRUE(Put(store->get(), record->generation + 1, 9).ok());
}

TEST(SessionStoreRaceTest, AProcessThatEndsBeforeAnyCallLosesNothing) {
  char root[] = "/tmp/sluice-store-XXXXXX";
  ASSERT_NE(mkdtemp(root), nullptr);
  int64_t n = 1;
  for (bool died = true; died && !HasFatalFailure(); ++n) {
    ASSERT_LT(n, 500);
    Die(absl::StrCat(root, "/", n), n, &died);
  }
  std::printf("%lld deaths\n", static_cast<long long>(n - 2));
  EXPECT_GT(n, 50);
  EXPECT_EQ(system(absl::StrCat("rm -rf '", root, "'").c_str()), 0);
}

}  // namespace
}  // namespace sluice
