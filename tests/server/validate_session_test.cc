#include "server/validate_session.h"

#include <string>
#include <vector>

#include "gmock/gmock.h"
#include "google/rpc/error_details.pb.h"
#include "gtest/gtest.h"
#include "server/status.h"

namespace sluice {
namespace {

using ::testing::ElementsAre;
using ::testing::Pair;

std::vector<std::string> Fields(const absl::Status& status) {
  EXPECT_TRUE(absl::IsInvalidArgument(status)) << status;
  std::vector<std::string> fields;
  const google::rpc::Status rpc_status = ToRpcStatus(status);
  for (const google::protobuf::Any& detail : rpc_status.details()) {
    google::rpc::BadRequest bad;
    if (!detail.UnpackTo(&bad)) continue;
    for (const auto& violation : bad.field_violations()) fields.push_back(violation.field());
  }
  return fields;
}

TEST(ValidateSession, CreateTakesOptions) {
  RequestBounds bounds;
  bounds.model_name = "m";
  v1::CreateSessionRequest message;
  absl::StatusOr<SessionSettings> settings = ParseCreate(message, bounds);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->id, "");
  EXPECT_EQ(settings->ttl, absl::ZeroDuration());
  message.mutable_options()->set_id("a_B-9");
  message.mutable_options()->mutable_ttl()->set_nanos(1);
  (*message.mutable_options()->mutable_labels())["k"] = "v";
  settings = ParseCreate(message, bounds);
  ASSERT_TRUE(settings.ok()) << settings.status();
  EXPECT_EQ(settings->ttl, absl::Nanoseconds(1));
  EXPECT_THAT(settings->labels, ElementsAre(Pair("k", "v")));
  message.set_model("other");
  EXPECT_TRUE(absl::IsNotFound(ParseCreate(message, bounds).status()));
}

TEST(ValidateSession, EveryBoundOfOptions) {
  v1::SessionOptions options;
  options.set_id("a b");
  options.set_affinity(std::string(65, 'x'));
  options.mutable_ttl();
  for (int i = 0; i < 17; ++i) (*options.mutable_labels())[std::to_string(i)] = "";
  EXPECT_THAT(Fields(ParseImportOptions(options).status()),
              ElementsAre("options.id", "options.affinity", "options.ttl", "options.labels"));
  options.Clear();
  options.set_id(std::string(64, 'x'));
  for (int i = 0; i < 16; ++i) {
    (*options.mutable_labels())[std::string(63, 'k') + static_cast<char>('a' + i)] =
        std::string(256, 'v');
  }
  EXPECT_TRUE(ParseImportOptions(options).ok());
  (*options.mutable_labels())[std::string(63, 'k') + 'a'] += "v";
  EXPECT_THAT(Fields(ParseImportOptions(options).status()), ElementsAre("options.labels"));
}

TEST(ValidateSession, IdsAreRequired) {
  EXPECT_THAT(Fields(ParseGet({}).status()), ElementsAre("id"));
  EXPECT_THAT(Fields(ParseFork({}).status()), ElementsAre("id"));
  EXPECT_THAT(Fields(ParseDelete({}).status()), ElementsAre("id"));
  EXPECT_THAT(Fields(ParseExport({}).status()), ElementsAre("id"));
  EXPECT_THAT(Fields(ParseUpdate({}).status()), ElementsAre("session.id"));
}

TEST(ValidateSession, APageTokenIsGoodForItsQueryAlone) {
  v1::ListSessionsRequest message;
  (*message.mutable_labels())["k"] = "v";
  message.set_page_token(PageToken("t", {{"k", "v"}}, "story"));
  const absl::StatusOr<ListQuery> query = ParseList(message, "t");
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_EQ(query->after_id, "story");
  EXPECT_EQ(query->page_size, 100);
  EXPECT_THAT(Fields(ParseList(message, "u").status()), ElementsAre("page_token"));
  (*message.mutable_labels())["k"] = "w";
  EXPECT_THAT(Fields(ParseList(message, "t").status()), ElementsAre("page_token"));
  message.clear_labels();
  for (const char* token : {"x", "c3Rvcnk=", "\xc3\xa9", "AAAAAAAAAAAAAAAAAAAAAAAAAAAA"}) {
    message.set_page_token(token);
    EXPECT_THAT(Fields(ParseList(message, "t").status()), ElementsAre("page_token"));
  }
}

TEST(ValidateSession, UpdateChangesWhatItsMaskNames) {
  v1::UpdateSessionRequest message;
  message.mutable_session()->set_id("a");
  absl::StatusOr<UpdateQuery> query = ParseUpdate(message);
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_FALSE(query->change.labels.has_value() || query->change.ttl.has_value());
  message.mutable_update_mask()->add_paths("labels");
  message.mutable_ttl()->set_seconds(5);
  query = ParseUpdate(message);
  ASSERT_TRUE(query.ok()) << query.status();
  EXPECT_TRUE(query->change.labels.has_value() && query->change.labels->empty());
  EXPECT_FALSE(query->change.ttl.has_value());
  message.mutable_update_mask()->add_paths("id");
  EXPECT_THAT(Fields(ParseUpdate(message).status()), ElementsAre("update_mask"));
  message.mutable_update_mask()->clear_paths();
  message.mutable_update_mask()->add_paths("ttl");
  EXPECT_EQ(ParseUpdate(message)->change.ttl, absl::Seconds(5));
  message.clear_ttl();
  EXPECT_THAT(Fields(ParseUpdate(message).status()), ElementsAre("ttl"));
}

}  // namespace
}  // namespace sluice
