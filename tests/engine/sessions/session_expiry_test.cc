// When sessions on disk end: counted from their last use, whoever used them, over restarts, and not
// by a clock that is wrong.

#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/recording_sink.h"
#include "tests/fakes/shared_daemons.h"

namespace sluice {
namespace {

constexpr absl::Duration kTtl = absl::Hours(1);

class SessionExpiryTest : public testing::Test {
 protected:
  void Boot(size_t count, bool shared, absl::Duration ttl = kTtl) {
    SharedOptions options;
    options.shared = shared;
    options.ttl = ttl;
    daemons = std::make_unique<SharedDaemons>(count, options);
  }
  SharedDaemon& At(size_t i) { return (*daemons)[i]; }
  // Time passes in steps, so that what has come due is done.
  void Pass(absl::Duration time) {
    for (int i = 0; i < 200; ++i) {
      daemons->Advance(time / 200);
      for (int turn = 0; turn < 3; ++turn) daemons->Turn();
    }
  }
  absl::Status Create(size_t i, const std::string& id) {
    std::optional<absl::Status> status;
    At(i).sessions().Create("", {.id = id},
                            [&](absl::StatusOr<SessionInfo> info) { status = info.status(); });
    daemons->Until([&] { return status.has_value(); });
    return *status;
  }
  absl::StatusOr<SessionInfo> Get(size_t i, const std::string& id) {
    std::optional<absl::StatusOr<SessionInfo>> out;
    At(i).sessions().Get("", id, [&](absl::StatusOr<SessionInfo> info) { out = std::move(info); });
    daemons->Until([&] { return out.has_value(); });
    return *out;
  }
  bool Lives(size_t i, const std::string& id) { return Get(i, id).ok(); }
  void Use(size_t i, const std::string& id, bool commit) {
    Request request = MakeRequest({5}, 1);
    request.session_id = id;
    request.commit = commit;
    request.on_conflict = OnConflict::kWait;
    auto sink = std::make_shared<RecordingSink>();
    At(i).Submit(std::move(request), sink);
    daemons->Until([&] { return sink->status.has_value(); });
    EXPECT_TRUE(sink->status->ok()) << *sink->status;
  }
  std::string OnlyRecord(const std::string& id) {
    for (const std::string& path : daemons->files().AllFiles("/d/sessions")) {
      if (path.find("s-" + id + "/") != std::string::npos && absl::EndsWith(path, ".session")) {
        return path;
      }
    }
    return "";
  }

  std::unique_ptr<SharedDaemons> daemons;
};

TEST_F(SessionExpiryTest, ATimeToLiveGoesOnOverRestarts) {
  for (const bool shared : {false, true}) {
    Boot(1, shared);
    ASSERT_TRUE(Create(0, "s").ok());
    Pass(absl::Minutes(25));
    daemons->Kill(0);
    Pass(absl::Minutes(25));
    EXPECT_TRUE(Lives(0, "s"));
    daemons->Kill(0);
    Pass(absl::Minutes(11));
    EXPECT_FALSE(Lives(0, "s")) << "an hour after its creation";
    EXPECT_EQ(OnlyRecord("s"), "") << "from the disk too";
    EXPECT_EQ(At(0).engine().stats().sessions_expired.value(), 1u);
  }
}

TEST_F(SessionExpiryTest, AUseCountsOverRestartsWithoutANewRecord) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "s").ok());
  Use(0, "s", true);
  Pass(absl::Seconds(1));
  const std::string record = OnlyRecord("s");
  for (int i = 0; i < 6; ++i) {
    Pass(absl::Minutes(40));
    Use(0, "s", false);
    Pass(absl::Seconds(1));
    if (i % 2 == 1) daemons->Kill(0);
  }
  EXPECT_EQ(OnlyRecord("s"), record) << "used, and not written";
  EXPECT_TRUE(Lives(0, "s"));
  Pass(absl::Minutes(61));
  EXPECT_FALSE(Lives(0, "s"));
}

TEST_F(SessionExpiryTest, TheDiskIsTouchedSeldom) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "s").ok());
  Use(0, "s", true);
  Pass(absl::Seconds(1));
  const absl::StatusOr<FileStamp> before = daemons->files().Stamp(OnlyRecord("s"));
  for (int i = 0; i < 100; ++i) Use(0, "s", false);
  Pass(absl::Seconds(10));
  EXPECT_EQ(daemons->files().Stamp(OnlyRecord("s"))->time_us, before->time_us);
  Pass(absl::Minutes(4));
  Use(0, "s", false);
  Pass(absl::Seconds(10));
  EXPECT_GT(daemons->files().Stamp(OnlyRecord("s"))->time_us, before->time_us);
}

TEST_F(SessionExpiryTest, UsesOfAllDaemonsCount) {
  Boot(2, true);
  ASSERT_TRUE(Create(0, "s").ok());
  Use(0, "s", true);
  EXPECT_TRUE(Lives(1, "s"));
  for (int i = 0; i < 6; ++i) {
    Pass(absl::Minutes(40));
    Use(0, "s", i % 2 == 0);
  }
  EXPECT_TRUE(Lives(0, "s")) << "the other daemon has not seen it used for hours";
  EXPECT_TRUE(Lives(1, "s"));
  EXPECT_GT(Get(1, "s")->expire_time, At(1).clock().WallNow() + absl::Minutes(50));
  Pass(absl::Minutes(62));
  for (size_t i : {0, 1}) EXPECT_FALSE(Lives(i, "s"));
  EXPECT_EQ(At(0).engine().stats().sessions_expired.value() +
                At(1).engine().stats().sessions_expired.value(),
            1u);
}

TEST_F(SessionExpiryTest, AClockThatJumpedAheadDeletesNothingForATimeToLive) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "old").ok());
  daemons->Kill(0);  // its record is read once more, and its age is the time of day's
  daemons->JumpWall(absl::Hours(20));
  Pass(absl::Minutes(50));
  EXPECT_TRUE(Lives(0, "old"));
  ASSERT_EQ(At(0).wrong_clocks().size(), 1u);
  Pass(absl::Minutes(8));
  EXPECT_TRUE(Lives(0, "old"));
  Pass(absl::Minutes(65));
  EXPECT_FALSE(Lives(0, "old")) << "one time to live, not for ever";
}

TEST_F(SessionExpiryTest, ALongTimeAwayEndsSessions) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "old").ok());
  daemons->KillAll();
  daemons->JumpWall(absl::Hours(24 * 365 * 60));
  daemons->Start();
  Pass(absl::Seconds(30));
  EXPECT_FALSE(Lives(0, "old"));
  EXPECT_TRUE(At(0).wrong_clocks().empty()) << "nobody can tell this from a machine that was off";
}

TEST_F(SessionExpiryTest, AClockBeforeTheNewestRecordDeletesNothingForATimeToLive) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "old").ok());
  Pass(absl::Minutes(50));
  ASSERT_TRUE(Create(0, "new").ok());
  daemons->KillAll();
  daemons->JumpWall(-absl::Hours(24));
  daemons->Start();
  Pass(absl::Minutes(55));
  EXPECT_TRUE(Lives(0, "old"));
  EXPECT_TRUE(Lives(0, "new"));
  ASSERT_EQ(At(0).wrong_clocks().size(), 1u);
  EXPECT_NE(At(0).wrong_clocks()[0].find("before the newest session"), std::string::npos);
  Pass(absl::Minutes(10));
  EXPECT_FALSE(Lives(0, "old"));
}

TEST_F(SessionExpiryTest, RecordsOfOlderVersionsStayADayAfterTheFirstStart) {
  Boot(1, false);
  for (const char* id : {"old", "used"}) ASSERT_TRUE(Create(0, id).ok());
  daemons->KillAll();
  // A version that knew no last use and no first start leaves it like this.
  ASSERT_TRUE(daemons->files().Remove("/d/first-start").ok());
  daemons->JumpWall(absl::Hours(24 * 30));
  daemons->Start();
  EXPECT_TRUE(Lives(0, "old"));
  Pass(absl::Hours(12));
  daemons->Kill(0);
  Pass(absl::Hours(11));
  EXPECT_TRUE(Lives(0, "old"));
  Use(0, "used", false);
  Pass(absl::Minutes(58));
  EXPECT_TRUE(Lives(0, "old"));
  Pass(absl::Minutes(20));
  EXPECT_FALSE(Lives(0, "old")) << "it was last used a month ago";
  EXPECT_FALSE(Lives(0, "used")) << "an hour was over";
}

TEST_F(SessionExpiryTest, TheDiskIsLookedAtBeforeASessionGoes) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "s").ok());
  Pass(absl::Minutes(40));
  // Somebody copied it back, or used it by other means.
  const absl::Time now = At(0).clock().WallNow();
  ASSERT_TRUE(daemons->files().SetTime(OnlyRecord("s"), absl::ToUnixMicros(now)).ok());
  Pass(absl::Minutes(50));
  EXPECT_TRUE(Lives(0, "s"));
  Pass(absl::Minutes(15));
  EXPECT_FALSE(Lives(0, "s"));
}

// ---- Sessions that cannot be read ----

class DamagedSessionsTest : public SessionExpiryTest {
 protected:
  void Damage(const std::string& id, const std::string& suffix) {
    for (const std::string& path : daemons->files().AllFiles("/d/sessions")) {
      if (path.find("s-" + id + "/") == std::string::npos || !absl::EndsWith(path, suffix))
        continue;
      std::string* bytes = daemons->files().Bytes(path);
      (*bytes)[bytes->size() / 2] ^= 1;
    }
  }
  std::string List(size_t i) {
    std::optional<absl::StatusOr<SessionPage>> page;
    At(i).sessions().List("", 100, "", {}, [&](absl::StatusOr<SessionPage> p) { page = p; });
    daemons->Until([&] { return page.has_value(); });
    EXPECT_TRUE(page->ok()) << page->status();
    std::string text;
    if (!page->ok()) return text;
    for (const SessionInfo& info : (*page)->sessions) {
      absl::StrAppend(&text, info.id, info.unreadable ? "! " : " ");
    }
    return text;
  }
};

TEST_F(DamagedSessionsTest, GetSaysItBeforeAnybodyCallsAndListMarksIt) {
  for (const bool shared : {false, true}) {
    for (const char* suffix : {".session", ".state"}) {
      for (const bool list_first : {false, true}) {
        SCOPED_TRACE(absl::StrCat(suffix, shared, list_first));
        Boot(1, shared);
        for (const char* id : {"a", "bad", "c"}) {
          ASSERT_TRUE(Create(0, id).ok());
          Use(0, id, true);
        }
        Pass(absl::Seconds(1));
        daemons->KillAll();
        Damage("bad", suffix);
        daemons->Start();
        if (list_first) {
          EXPECT_EQ(List(0), "a bad! c ");
        }
        EXPECT_TRUE(absl::IsDataLoss(Get(0, "bad").status())) << Get(0, "bad").status();
        EXPECT_TRUE(absl::IsDataLoss(Get(0, "bad").status())) << "and again";
        EXPECT_EQ(List(0), "a bad! c ");
        EXPECT_TRUE(Lives(0, "a"));
        Pass(absl::Seconds(1));
        EXPECT_EQ(At(0).quarantined().size(), 1u);
        EXPECT_EQ(At(0).engine().stats().quarantined.value(), 1u);
        EXPECT_TRUE(absl::IsAlreadyExists(Create(0, "bad")));
        std::optional<absl::Status> deleted;
        At(0).sessions().Delete("", "bad", "", [&](absl::Status status) { deleted = status; });
        daemons->Until([&] { return deleted.has_value(); });
        EXPECT_TRUE(deleted->ok()) << *deleted;
        EXPECT_EQ(List(0), "a c ");
        EXPECT_TRUE(Create(0, "bad").ok()) << "its name is free again";
        EXPECT_EQ(List(0), "a bad c ");
      }
    }
  }
}

TEST_F(DamagedSessionsTest, GetNoticesWhatHappensToAFileThatWasReadable) {
  for (const bool removed : {false, true}) {
    SCOPED_TRACE(removed);
    Boot(1, false);
    ASSERT_TRUE(Create(0, "bad").ok());
    Use(0, "bad", true);
    Pass(absl::Seconds(1));
    daemons->KillAll();
    daemons->Start();
    EXPECT_TRUE(Get(0, "bad").ok());
    EXPECT_TRUE(Get(0, "bad").ok());
    for (const std::string& path : daemons->files().AllFiles("/d/sessions")) {
      if (!absl::EndsWith(path, ".state")) continue;
      if (removed) {
        ASSERT_TRUE(daemons->files().Remove(path).ok());
      } else {
        daemons->files().Bytes(path)->resize(40);
      }
    }
    EXPECT_TRUE(absl::IsDataLoss(Get(0, "bad").status())) << Get(0, "bad").status();
    EXPECT_EQ(List(0), "bad! ");
    daemons.reset();
  }
}

TEST_F(DamagedSessionsTest, AFolderInTheRecordsPlaceIsDamageAndCanBeDeleted) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "bad").ok());
  Use(0, "bad", true);
  Pass(absl::Seconds(1));
  daemons->KillAll();
  for (const std::string& path : daemons->files().AllFiles("/d/sessions")) {
    if (!absl::EndsWith(path, ".session")) continue;
    ASSERT_TRUE(daemons->files().Remove(path).ok());
    ASSERT_TRUE(daemons->files().MakeDir(path).ok());
  }
  daemons->Start();
  EXPECT_TRUE(absl::IsDataLoss(Get(0, "bad").status())) << Get(0, "bad").status();
  EXPECT_EQ(At(0).quarantined().size(), 1u);
  std::optional<absl::Status> deleted;
  At(0).sessions().Delete("", "bad", "", [&](absl::Status status) { deleted = status; });
  daemons->Until([&] { return deleted.has_value(); });
  EXPECT_TRUE(deleted->ok()) << *deleted;
  EXPECT_EQ(List(0), "");
}

TEST_F(DamagedSessionsTest, ACallOnOneEndsWithDataLossAndLosesNothingElse) {
  Boot(1, false);
  for (const char* id : {"a", "bad"}) {
    ASSERT_TRUE(Create(0, id).ok());
    Use(0, id, true);
  }
  Pass(absl::Seconds(1));
  daemons->KillAll();
  Damage("bad", ".state");
  daemons->Start();
  Request request = MakeRequest({5}, 1);
  request.session_id = "bad";
  auto sink = std::make_shared<RecordingSink>();
  At(0).Submit(std::move(request), sink);
  daemons->Until([&] { return sink->status.has_value(); });
  EXPECT_TRUE(absl::IsDataLoss(*sink->status)) << *sink->status;
  EXPECT_EQ(List(0), "a bad! ");
  EXPECT_TRUE(absl::IsDataLoss(Get(0, "bad").status()));
  Use(0, "a", true);
}

TEST_F(DamagedSessionsTest, FilesWhereFoldersShouldBeAreMovedAside) {
  Boot(1, false);
  ASSERT_TRUE(Create(0, "good").ok());
  daemons->KillAll();
  for (const char* path : {"/d/sessions/t-tenant", "/d/sessions/notes.txt", "/d/sessions/t-/s-x",
                           "/d/sessions/t-/README"}) {
    ASSERT_TRUE(daemons->files().WriteNew(path, {"x"}).ok());
  }
  daemons->Start();
  EXPECT_EQ(At(0).quarantined(), (std::vector<std::string>{"sessions/t-tenant"}));
  EXPECT_TRUE(Lives(0, "good"));
  EXPECT_TRUE(absl::IsNotFound(Get(0, "x").status()));
  EXPECT_EQ(At(0).quarantined().size(), 2u);
  EXPECT_TRUE(Create(0, "x").ok());
  EXPECT_EQ(List(0), "good x ");
  EXPECT_EQ(daemons->files().AllFiles("/d/quarantine").size(), 2u);
}

}  // namespace
}  // namespace sluice
