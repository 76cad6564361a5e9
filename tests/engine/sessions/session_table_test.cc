#include "engine/sessions/session_table.h"

#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

TEST(SessionTableTest, NamesAreThoseOfTheirTenants) {
  SessionParts parts;
  Session* mine = parts.Live("a");
  EXPECT_EQ(parts.table->Find({"t", "a"}), mine);
  EXPECT_EQ(parts.table->Find({"other", "a"}), nullptr);
  EXPECT_EQ(parts.table->FindOrInsert({"t", "b"}), nullptr) << "there is no store to look in";
}

TEST(SessionTableTest, WithAStoreANameMayBeAnothersWork) {
  SessionParts parts(WithStore());
  Session* asked = parts.table->FindOrInsert({"t", "b"});
  ASSERT_NE(asked, nullptr);
  EXPECT_EQ(asked->phase, SessionPhase::kUnread);
  EXPECT_EQ(parts.table->total(), 0) << "nobody knows yet whether there is one";
  parts.table->Index(asked);
  parts.table->Index(asked);
  EXPECT_EQ(parts.table->total(), 1);
}

TEST(SessionTableTest, LimitsCountWhatIsThere) {
  SessionsSetup setup;
  setup.limits.max_sessions = 3;
  setup.limits.max_sessions_per_tenant = 2;
  SessionParts parts(setup);
  parts.Live("a");
  EXPECT_TRUE(parts.table->CheckLimits("t").ok());
  Session* b = parts.Live("b");
  EXPECT_TRUE(absl::IsResourceExhausted(parts.table->CheckLimits("t")));
  EXPECT_TRUE(parts.table->CheckLimits("u").ok());
  parts.table->Insert({"u", "c"}, SessionPhase::kLive, /*indexed=*/true);
  EXPECT_TRUE(absl::IsResourceExhausted(parts.table->CheckLimits("u")));
  parts.table->Take(b);
  EXPECT_TRUE(parts.table->CheckLimits("t").ok());
}

TEST(SessionTableTest, BusyOnesAreCountedUntilTheyGo) {
  SessionParts parts;
  Session* session = parts.Live("a");
  parts.table->SetWriter(session, std::make_shared<SessionUse>());
  parts.table->SetWriter(session, std::make_shared<SessionUse>());
  EXPECT_EQ(parts.table->busy(), 1);
  EXPECT_TRUE(parts.table->Info(*session).busy);
  parts.table->Take(session);
  EXPECT_EQ(parts.table->busy(), 0);
}

TEST(SessionTableTest, EtagsAndModels) {
  SessionParts parts;
  Session* session = parts.Live("a");
  EXPECT_TRUE(parts.table->CheckEtag(*session, "").ok());
  EXPECT_TRUE(parts.table->CheckEtag(*session, "e0").ok());
  EXPECT_TRUE(absl::IsAborted(parts.table->CheckEtag(*session, "e1")));
  EXPECT_EQ(parts.stats.conflicts.value(), 1u);
  EXPECT_TRUE(parts.table->CheckModel(*session).ok());
  session->fingerprint = "another";
  EXPECT_TRUE(absl::IsFailedPrecondition(parts.table->CheckModel(*session)));
}

}  // namespace
}  // namespace sluice
