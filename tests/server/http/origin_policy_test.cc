#include "server/http/origin_policy.h"

#include "gmock/gmock.h"
#include "gtest/gtest.h"

namespace sluice {
namespace {

using ::testing::Contains;
using ::testing::HasSubstr;
using ::testing::IsEmpty;
using ::testing::Pair;

HttpHead Head(const char* host, const char* origin = "", const char* target = "/") {
  HttpHead head;
  head.method = "GET";
  head.target = target;
  if (*host != '\0') head.fields.emplace_back("Host", host);
  if (*origin != '\0') head.fields.emplace_back("Origin", origin);
  return head;
}

int StatusOf(const OriginPolicy& policy, const HttpHead& head) {
  const std::optional<HttpError> error = policy.Check(head);
  return error.has_value() ? error->status : 200;
}

TEST(OriginPolicyTest, APageOfItsOwnMayAsk) {
  const OriginPolicy policy;
  for (const auto& [host, origin] : {std::pair{"a:8080", "http://a:8080"},
                                     {"a", "https://a"},
                                     {"a", "http://a:80"},
                                     {"a:443", "https://a"},
                                     {"A.example", "https://a.Example"},
                                     {"[::1]:1", "http://[::1]:1"}}) {
    EXPECT_EQ(StatusOf(policy, Head(host, origin)), 200) << origin;
    EXPECT_THAT(policy.AnswerFields(Head(host, origin)), IsEmpty());
  }
  EXPECT_EQ(StatusOf(policy, Head("a")), 200) << "no page asks";
  for (const auto& [host, origin] : {std::pair{"a:8080", "http://a:8081"},
                                     {"a:8080", "http://a"},
                                     {"a", "https://b"},
                                     {"a", "null"},
                                     {"a", "a"},
                                     {"a", "http://"},
                                     {"", "http://a"},
                                     {"a", "http://a.b"},
                                     {"a:443", "http://a"},
                                     {"a", "http://a/"},
                                     {"a", "http://x@a"}}) {
    EXPECT_EQ(StatusOf(policy, Head(host, origin)), 403) << origin;
    EXPECT_THAT(policy.AnswerFields(Head(host, origin)), IsEmpty());
  }
}

TEST(OriginPolicyTest, ListedOriginsMayAsk) {
  const OriginPolicy policy = *OriginPolicy::Parse("https://a.example, http://b:3000");
  EXPECT_EQ(StatusOf(policy, Head("h", "https://A.example")), 200);
  EXPECT_EQ(StatusOf(policy, Head("h", "http://b:3000")), 200);
  EXPECT_EQ(StatusOf(policy, Head("h", "http://a.example")), 403);
  EXPECT_EQ(StatusOf(policy, Head("h", "http://b")), 403);
  const OriginPolicy::Fields fields = policy.AnswerFields(Head("h", "https://a.example"));
  EXPECT_THAT(fields, Contains(Pair("Access-Control-Allow-Origin", "https://a.example")));
  EXPECT_THAT(fields, Contains(Pair("Access-Control-Allow-Credentials", "true")));
  EXPECT_THAT(fields, Contains(Pair("Vary", "Origin")));
  HttpHead twice = Head("h", "https://a.example");
  twice.fields.emplace_back("Origin", "https://evil");
  EXPECT_EQ(StatusOf(policy, twice), 403);
}

TEST(OriginPolicyTest, AStarGivesNobodyCredentials) {
  const OriginPolicy policy = *OriginPolicy::Parse("*");
  EXPECT_EQ(StatusOf(policy, Head("h", "null")), 200);
  const OriginPolicy::Fields fields = policy.AnswerFields(Head("h", "https://evil"));
  EXPECT_THAT(fields, Contains(Pair("Access-Control-Allow-Origin", "*")));
  for (const auto& [name, value] : fields) EXPECT_THAT(name, Not(HasSubstr("Credentials")));
}

TEST(OriginPolicyTest, RefusesWhatIsNoOrigin) {
  for (const char* text : {"a.example", "https://", "https://a/b", "://a", "https://a,b c"}) {
    EXPECT_FALSE(OriginPolicy::Parse(text).ok()) << text;
  }
  EXPECT_THAT(std::string(OriginPolicy::Parse("https://a,b").status().message()),
              HasSubstr("'b' is no origin"));
  EXPECT_TRUE(OriginPolicy::Parse("").ok());
}

TEST(OriginPolicyTest, OnlyNamesOfLoopbackLeadHere) {
  OriginPolicy policy;
  EXPECT_EQ(StatusOf(policy, Head("evil.example")), 200) << "not asked to";
  policy.CheckHosts("proxy.example, other");
  for (const char* host : {"localhost", "LOCALHOST:8080", "a.localhost", "127.0.0.1:1", "127.9.0.1",
                           "[::1]", "[::1]:8080", "Proxy.example:443", "other", ""}) {
    EXPECT_EQ(StatusOf(policy, Head(host)), 200) << host;
  }
  for (const char* host : {"evil.example", "127.0.0.1.evil.example", "localhost.evil.example",
                           "127.0.0.a", "[::2]", "xlocalhost", "1127.0.0.1", "127.0.0.1."}) {
    EXPECT_EQ(StatusOf(policy, Head(host)), 403) << host;
  }
  EXPECT_EQ(StatusOf(policy, Head("localhost", "", "http://localhost:1/x")), 200);
  EXPECT_EQ(StatusOf(policy, Head("localhost", "", "http://evil.example/x")), 403);
}

TEST(OriginPolicyTest, AnswersPreflights) {
  HttpHead head = Head("h", "https://a");
  EXPECT_FALSE(OriginPolicy::IsPreflight(head));
  head.method = "OPTIONS";
  EXPECT_FALSE(OriginPolicy::IsPreflight(head));
  head.fields.emplace_back("Access-Control-Request-Method", "POST");
  head.fields.emplace_back("Access-Control-Request-Headers", "authorization, x-session-id");
  EXPECT_TRUE(OriginPolicy::IsPreflight(head));
  const HttpReply reply = OriginPolicy::Preflight(head, "POST");
  EXPECT_EQ(reply.status, 200);
  EXPECT_THAT(reply.headers, Contains(Pair("Access-Control-Allow-Methods", "POST")));
  EXPECT_THAT(reply.headers,
              Contains(Pair("Access-Control-Allow-Headers", "authorization, x-session-id")));
}

}  // namespace
}  // namespace sluice
