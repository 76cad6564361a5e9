#include "client/session_client.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/client/fake_server.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::IsEmpty;
using ::testing::MatchesRegex;

class SessionClientTest : public ::testing::Test {
 protected:
  FakeServer server_;
  FakeSessions& fake_ = server_.sessions;
  const Client client_ = Client({.address = server_.address()});
  const SessionClient sessions_ = SessionClient(client_);
};

TEST(NewSessionIdTest, Is128RandomBits) {
  EXPECT_THAT(NewSessionId(), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_NE(NewSessionId(), NewSessionId());
}

TEST_F(SessionClientTest, CreateNamesTheSessionAndGoesToItsDaemon) {
  const absl::StatusOr<v1::Session> session = sessions_.Create({}, {});
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_THAT(session->id(), MatchesRegex("[0-9a-f]{32}"));
  EXPECT_EQ(session->affinity(), session->id());
  EXPECT_EQ(fake_.affinity, session->id());
}

TEST_F(SessionClientTest, ChosenNamesStay) {
  v1::CreateSessionRequest request;
  request.mutable_options()->set_id("story");
  request.mutable_options()->set_affinity("shelf");
  EXPECT_EQ(sessions_.Create(request, {})->id(), "story");
  EXPECT_EQ(fake_.affinity, "shelf");
  EXPECT_TRUE(absl::IsAlreadyExists(sessions_.Create(request, {}).status()));
}

TEST_F(SessionClientTest, CallsCarryTheAffinity) {
  fake_.Add("story");
  EXPECT_TRUE(sessions_.Get("story", {}).ok());
  EXPECT_EQ(fake_.affinity, "story");
  EXPECT_TRUE(sessions_.Get("story", {.affinity = "shelf"}).ok());
  EXPECT_EQ(fake_.affinity, "shelf");
  // The client leaves an id that no metadata can hold for the daemon to refuse.
  EXPECT_TRUE(absl::IsNotFound(sessions_.Get("no\nid", {}).status()));
  EXPECT_EQ(fake_.affinity, "");
}

TEST_F(SessionClientTest, ListReadsEveryPage) {
  for (const char* id : {"a", "b", "c", "d", "e"}) fake_.Add(id);
  std::vector<std::string> ids;
  const auto take = [&](const v1::Session& session) {
    ids.push_back(session.id());
    return ids.size() < 4 || session.id() == "e";
  };
  EXPECT_TRUE(sessions_.List({}, {}, take).ok());
  EXPECT_THAT(ids, ElementsAre("a", "b", "c", "d"));  // until the caller has enough
  ids = {"of", "other", "tests", "here"};
  ids.clear();
  EXPECT_TRUE(sessions_
                  .List({}, {},
                        [&](const v1::Session& session) {
                          ids.push_back(session.id());
                          return true;
                        })
                  .ok());
  EXPECT_THAT(ids, ElementsAre("a", "b", "c", "d", "e"));
}

TEST_F(SessionClientTest, ForkUpdateAndRemove) {
  fake_.Add("story").set_position(7);
  v1::ForkSessionRequest fork;
  fork.set_id("story");
  fork.mutable_options()->set_id("copy");
  const absl::StatusOr<v1::Session> copy = sessions_.Fork(fork, {});
  ASSERT_TRUE(copy.ok()) << copy.status();
  EXPECT_EQ(copy->position(), 7);
  EXPECT_EQ(copy->affinity(), "story");

  v1::UpdateSessionRequest update;
  update.mutable_session()->set_id("copy");
  (*update.mutable_session()->mutable_labels())["mood"] = "dark";
  EXPECT_EQ(sessions_.Update(update, {})->labels().at("mood"), "dark");

  v1::DeleteSessionRequest remove;
  remove.set_id("copy");
  remove.set_etag("old");
  EXPECT_TRUE(absl::IsAborted(sessions_.Remove(remove, {})));
  remove.clear_etag();
  EXPECT_TRUE(sessions_.Remove(remove, {}).ok());
  EXPECT_TRUE(absl::IsNotFound(sessions_.Remove(remove, {})));
}

TEST_F(SessionClientTest, ExportHandsOutThePieces) {
  fake_.Add("story");
  v1::ExportSessionRequest request;
  request.set_id("story");
  std::vector<std::string> pieces;
  const absl::Status status = sessions_.Export(request, {}, [&](absl::string_view data) {
    pieces.emplace_back(data);
    return absl::OkStatus();
  });
  EXPECT_TRUE(status.ok()) << status;
  EXPECT_THAT(pieces, ElementsAre("SLUI", "CE"));
}

TEST_F(SessionClientTest, ExportEndsWithTheCallersError) {
  fake_.Add("story");
  v1::ExportSessionRequest request;
  request.set_id("story");
  const absl::Status status = sessions_.Export(
      request, {}, [](absl::string_view) { return absl::InternalError("the disk is full"); });
  EXPECT_EQ(status, absl::InternalError("the disk is full"));
}

// Hands out `pieces`, then `end`.
class Source {
 public:
  Source(std::vector<std::string> pieces, absl::Status end)
      : pieces_(std::move(pieces)), end_(std::move(end)) {}
  absl::StatusOr<std::string> operator()() {
    if (next_ < pieces_.size()) return pieces_[next_++];
    if (!end_.ok()) return end_;
    return std::string();
  }

 private:
  std::vector<std::string> pieces_;
  size_t next_ = 0;
  absl::Status end_;
};

TEST_F(SessionClientTest, ImportSendsWhatItIsGiven) {
  Source source({"SL", "UICE"}, absl::OkStatus());
  v1::SessionOptions options;
  options.set_id("story");
  const absl::StatusOr<v1::Session> session =
      sessions_.Import(options, {}, [&] { return source(); });
  ASSERT_TRUE(session.ok()) << session.status();
  EXPECT_EQ(session->id(), "story");
  EXPECT_EQ(fake_.imported, "SLUICE");
  EXPECT_EQ(fake_.affinity, "story");
}

TEST_F(SessionClientTest, ImportThatCannotReadOnMakesNoSession) {
  Source source({"SL"}, absl::InternalError("the disk is gone"));
  const absl::StatusOr<v1::Session> session = sessions_.Import({}, {}, [&] { return source(); });
  EXPECT_EQ(session.status(), absl::InternalError("the disk is gone"));
  EXPECT_THAT(fake_.all(), IsEmpty());
}

TEST_F(SessionClientTest, ImportIsToldOfARefusalWhileItSends) {
  fake_.import_status = {grpc::StatusCode::DATA_LOSS, "damaged"};
  const absl::StatusOr<v1::Session> session =
      sessions_.Import({}, {}, [] { return std::string(1 << 16, 'x'); });  // never ends by itself
  EXPECT_EQ(session.status().code(), absl::StatusCode::kDataLoss);
  EXPECT_EQ(session.status().message(), "damaged");
}

}  // namespace
}  // namespace sluice
