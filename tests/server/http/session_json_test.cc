#include "server/http/session_json.h"

#include <nlohmann/json.hpp>

#include "gtest/gtest.h"
#include "server/http/http_error.h"

namespace sluice {
namespace {

using Json = nlohmann::json;

template <typename T>
std::string FieldOf(const absl::StatusOr<T>& result) {
  return ToHttpError(result.status(), false).param;
}

TEST(SessionJsonTest, ASessionHasItsFields) {
  v1::Session session;
  session.set_id("a");
  session.set_etag("e1");
  session.set_position(7);
  session.set_tier(v1::STATE_TIER_DISK);
  (*session.mutable_labels())["k"] = "a \"quoted\" \xff";
  const Json json = Json::parse(SessionJson(session));
  EXPECT_EQ(json["object"], "session");
  EXPECT_EQ(json["position"], 7);
  EXPECT_EQ(json["tier"], "disk");
  EXPECT_TRUE(json["expires_at"].is_null());
  EXPECT_FALSE(json.contains("unreadable"));
  EXPECT_EQ(json["labels"]["k"], "a \"quoted\" \xEF\xBF\xBD");
  session.set_unreadable(true);
  EXPECT_EQ(Json::parse(SessionJson(session))["unreadable"], true);
}

TEST(SessionJsonTest, TheLastPageSaysSo) {
  v1::ListSessionsResponse page;
  EXPECT_EQ(SessionListJson(page),
            R"({"object":"list","data":[],"has_more":false,"next_page_token":null})");
  page.set_next_page_token("t");
  EXPECT_EQ(Json::parse(SessionListJson(page))["next_page_token"], "t");
}

TEST(SessionJsonTest, ReadsACreation) {
  const auto message =
      ParseCreateSession(R"({"id": "a", "ttl": 1.5, "labels": {"k": "v"}, "affinity": null})");
  ASSERT_TRUE(message.ok()) << message.status();
  EXPECT_EQ(message->options().id(), "a");
  EXPECT_EQ(message->options().ttl().seconds(), 1);
  EXPECT_EQ(message->options().ttl().nanos(), 500000000);
  EXPECT_EQ(message->options().labels().at("k"), "v");
  EXPECT_TRUE(ParseCreateSession("").ok());
  EXPECT_EQ(FieldOf(ParseCreateSession(R"({"id": 5})")), "id");
  EXPECT_EQ(FieldOf(ParseCreateSession(R"({"ttl": "60"})")), "ttl");
  EXPECT_EQ(FieldOf(ParseCreateSession(R"({"ttl": 1e300})")), "ttl");
  EXPECT_EQ(FieldOf(ParseCreateSession(R"({"labels": {"k": 1}})")), "labels");
  EXPECT_EQ(FieldOf(ParseCreateSession(R"({"etag": "e"})")), "etag");
  EXPECT_FALSE(ParseCreateSession("[]").ok());
}

TEST(SessionJsonTest, AnUpdateChangesWhatItNames) {
  auto message = ParseUpdateSession(R"({"labels": {}, "etag": "e"})");
  ASSERT_TRUE(message.ok()) << message.status();
  ASSERT_EQ(message->update_mask().paths_size(), 1);
  EXPECT_EQ(message->update_mask().paths(0), "labels");
  EXPECT_EQ(message->session().etag(), "e");
  message = ParseUpdateSession(R"({"ttl": 60})");
  ASSERT_EQ(message->update_mask().paths_size(), 1);
  EXPECT_EQ(message->update_mask().paths(0), "ttl");
}

TEST(SessionJsonTest, ReadsQueries) {
  const auto list = ParseListSessions("/v1/sessions?page_size=7&labels.a+b=%C3%A9&page_token=t#x");
  ASSERT_TRUE(list.ok()) << list.status();
  EXPECT_EQ(list->page_size(), 7);
  EXPECT_EQ(list->page_token(), "t");
  EXPECT_EQ(list->labels().at("a b"), "\xC3\xA9");
  EXPECT_EQ(FieldOf(ParseListSessions("/?page_size=x")), "page_size");
  EXPECT_EQ(FieldOf(ParseListSessions("/?limit=1")), "limit");
  EXPECT_FALSE(ParseListSessions("/?page_size").ok());
  EXPECT_FALSE(ParseListSessions("/?page_token=%z").ok());
  const auto options = ParseImportSession("/?id=a&ttl=0.5");
  ASSERT_TRUE(options.ok()) << options.status();
  EXPECT_EQ(options->ttl().nanos(), 500000000);
  EXPECT_EQ(FieldOf(ParseImportSession("/?ttl=nan")), "ttl");
  EXPECT_TRUE(RefuseQuery("/v1/sessions").ok());
  EXPECT_FALSE(RefuseQuery("/v1/sessions?a=b").ok());
}

TEST(SessionJsonTest, AnEtagComesFromTheHeaderOrTheBody) {
  const auto etag = [](absl::string_view header, const std::string& body) {
    HttpHead head;
    head.fields.emplace_back("if-match", std::string(header));
    return EtagOf(head, body);
  };
  EXPECT_EQ(*EtagOf({}, "body"), "body");
  EXPECT_EQ(*etag("\"e\"", ""), "e");
  EXPECT_EQ(*etag("e", "e"), "e");
  EXPECT_EQ(*etag("*", "body"), "body");
  EXPECT_NE(*etag("\"\"", ""), "");
  EXPECT_EQ(FieldOf(etag("\"a\", \"b\"", "")), "If-Match");
  EXPECT_EQ(FieldOf(etag("\"a\"", "b")), "etag");
}

}  // namespace
}  // namespace sluice
