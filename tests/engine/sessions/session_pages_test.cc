#include "engine/sessions/session_pages.h"

#include <optional>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/fakes/session_parts.h"

namespace sluice {
namespace {

using testing::ElementsAre;

struct PagesParts : SessionParts {
  explicit PagesParts(SessionsSetup with = {})
      : SessionParts(std::move(with)),
        pages(context, table.get(), queue.get(), owners.get(), endings.get()) {}
  void List(int32_t size, const std::string& after, SessionLabels labels = {}) {
    page.reset();
    pages.List("t", size, after, std::move(labels),
               [this](absl::StatusOr<SessionPage> out) { page = *std::move(out); });
  }
  std::vector<std::string> Ids() {
    std::vector<std::string> ids;
    for (const SessionInfo& info : page->sessions) ids.push_back(info.id);
    return ids;
  }

  SessionPages pages;
  std::optional<SessionPage> page;
};

TEST(SessionPagesTest, PagesGoOnWhereTheLastOneEnded) {
  PagesParts parts;
  for (const char* id : {"a", "b", "c"}) parts.Live(id);
  parts.table->Insert({"u", "x"}, SessionPhase::kLive, true);
  parts.List(2, "");
  EXPECT_THAT(parts.Ids(), ElementsAre("a", "b"));
  EXPECT_EQ(parts.page->next_after, "b");
  parts.List(2, "b");
  EXPECT_THAT(parts.Ids(), ElementsAre("c"));
  EXPECT_EQ(parts.page->next_after, "");
}

TEST(SessionPagesTest, LabelsAreAllLookedFor) {
  PagesParts parts;
  parts.Live("a")->now.labels = {{"k", "v"}, {"l", "w"}};
  parts.Live("b")->now.labels = {{"k", "v"}};
  parts.List(10, "", {{"k", "v"}, {"l", "w"}});
  EXPECT_THAT(parts.Ids(), ElementsAre("a"));
}

TEST(SessionPagesTest, WhatIsUnknownIsReadOnceAndListedInAnyCase) {
  PagesParts parts(WithStore());
  parts.Live("a");
  Session* b = parts.table->Insert({"t", "b"}, SessionPhase::kUnread, true);
  parts.List(10, "");
  EXPECT_FALSE(parts.page.has_value());
  ASSERT_EQ(b->on_read.size(), 1u);
  EXPECT_TRUE(b->queued);
  for (const auto& read : TakeWaits(b)) read(absl::UnavailableError("the disk is away"));
  EXPECT_THAT(parts.Ids(), ElementsAre("a", "b"));
  EXPECT_TRUE(parts.page->sessions[1].unreadable);
}

TEST(SessionPagesTest, TheDirectorySaysWhatIsThere) {
  PagesParts parts(WithStore(/*shared=*/true));
  parts.Stored("gone");
  parts.List(10, "");
  std::vector<std::unique_ptr<StoreJob>> jobs;
  parts.pages.AddLists(&jobs);
  ASSERT_EQ(jobs.size(), 1u);
  parts.queue->Return(*jobs[0]);
  jobs[0]->names = {{"t", "new", 1}};
  parts.pages.ListDone(*jobs[0]);
  EXPECT_EQ(parts.table->Find({"t", "gone"}), nullptr);
  Session* added = parts.table->Find({"t", "new"});
  ASSERT_NE(added, nullptr);
  EXPECT_EQ(added->phase, SessionPhase::kUnread);
  for (const auto& read : TakeWaits(added)) read(absl::OkStatus());
  EXPECT_THAT(parts.Ids(), ElementsAre("new"));
}

}  // namespace
}  // namespace sluice
