#include "server/auth.h"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <fstream>
#include <string>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "server/auth_table.h"
#include "server/failure_limit.h"
#include "tests/fakes/fake_clock.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::Not;

std::string Hex(absl::string_view token) {
  const TokenDigest digest = DigestOf(token);
  return absl::BytesToHexString({reinterpret_cast<const char*>(digest.data()), digest.size()});
}
std::string TokenLine(absl::string_view tenant, absl::string_view token) {
  return absl::StrCat("token ", tenant, " sha256:", Hex(token), "\n");
}

std::string ErrorOf(absl::string_view text) {
  const absl::StatusOr<AuthTable> table = AuthTable::Parse(text, "f");
  EXPECT_TRUE(absl::IsInvalidArgument(table.status())) << text;
  return std::string(table.status().message());
}

TEST(AuthTable, DigestIsSha256) {
  EXPECT_EQ(Hex("password"), "5e884898da28047151d0e56f8dc6292773603d0d6aabbdd62a11ef721d1542d8");
}

TEST(AuthTable, FindsTenantsByTokenAndBySubject) {
  const absl::StatusOr<AuthTable> table = AuthTable::Parse(
      absl::StrCat(
          "# a comment\n\ntenant * max_streams=7 inter_token=2.5ms\ntenant acme weight=4\n",
          TokenLine("acme", "one"), TokenLine("acme", "two"),
          "tenant b-2.c max_streams=9 max_queued_requests=2 max_queued_tokens=300 "
          "inter_token=none\r\n",
          "  cert  b-2.c   CN=two words,O=B # no comment  \n", TokenLine("b-2.c", "three")),
      "f");
  ASSERT_TRUE(table.ok()) << table.status();
  EXPECT_EQ(table->tenants().size(), 2u);
  ASSERT_NE(table->FindToken("one"), nullptr);
  EXPECT_EQ(table->FindToken("one")->name, "acme");
  EXPECT_EQ(table->FindToken("two"), table->FindToken("one"));
  EXPECT_EQ(table->FindToken("one")->limits.max_streams, 7);
  EXPECT_EQ(table->FindToken("one")->limits.weight, 4);
  EXPECT_EQ(table->FindToken("one")->limits.max_queued_tokens, 1 << 20);
  EXPECT_EQ(table->FindToken("one")->limits.inter_token, absl::Microseconds(2500));
  const TenantRef b = table->FindToken("three");
  ASSERT_NE(b, nullptr);
  EXPECT_EQ(b->limits.max_streams, 9);
  EXPECT_EQ(b->limits.max_queued_requests, 2);
  EXPECT_EQ(b->limits.max_queued_tokens, 300);
  EXPECT_EQ(b->limits.inter_token, absl::InfiniteDuration());
  const TenantRef shown = table->FindSubject("CN=two words,O=B # no comment");
  ASSERT_NE(shown, nullptr);
  EXPECT_EQ(shown->name, "b-2.c");
  EXPECT_EQ(shown->limits.max_streams, 9);
  EXPECT_TRUE(shown->by_certificate);
  EXPECT_FALSE(b->by_certificate);
  for (const char* wrong : {"", "One", "ONE", "one ", " one", "onetwo", "four"}) {
    EXPECT_EQ(table->FindToken(wrong), nullptr) << wrong;
  }
  EXPECT_EQ(table->FindToken(absl::string_view("one\0", 4)), nullptr);
  EXPECT_EQ(table->FindSubject("CN=two words"), nullptr);
  EXPECT_EQ(table->FindSubject(""), nullptr);
}

TEST(AuthTable, AdmitsWhoCouldStillShowWhoTheyAre) {
  const absl::StatusOr<AuthTable> table = AuthTable::Parse(
      absl::StrCat("tenant both\n", TokenLine("both", "1"), "cert both CN=both\ntenant token\n",
                   TokenLine("token", "2"), "tenant cert\ncert cert CN=cert\ntenant none\n"),
      "f");
  ASSERT_TRUE(table.ok()) << table.status();
  const auto admits = [&](const char* name, bool by_certificate) {
    return table->Admits({.name = name, .limits = {}, .by_certificate = by_certificate});
  };
  EXPECT_TRUE(admits("both", false));
  EXPECT_TRUE(admits("both", true));
  EXPECT_TRUE(admits("token", false));
  EXPECT_FALSE(admits("token", true));
  EXPECT_FALSE(admits("cert", false));
  EXPECT_TRUE(admits("cert", true));
  EXPECT_FALSE(admits("none", false));
  EXPECT_FALSE(admits("gone", false));
}

TEST(AuthTable, ErrorsNameTheLineAndNoToken) {
  EXPECT_THAT(ErrorOf("\ntenants a\n"), HasSubstr("f:2: a line begins with"));
  EXPECT_THAT(ErrorOf("tenant\n"), HasSubstr("f:1: a tenant's name"));
  EXPECT_THAT(ErrorOf("tenant a/b\n"), HasSubstr("a tenant's name"));
  EXPECT_THAT(ErrorOf(absl::StrCat("tenant ", std::string(65, 'a'))), HasSubstr("1 to 64"));
  EXPECT_THAT(ErrorOf("tenant a\ntenant a\n"), HasSubstr("f:2: tenant a is there twice"));
  EXPECT_THAT(ErrorOf("tenant a limit=3\n"), HasSubstr("max_streams"));
  for (const char* value : {"", "0", "-1", "1.5", "x", "9999999999999999999"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("tenant a max_streams=", value)),
                HasSubstr("max_streams must be a whole number in [1, "));
  }
  EXPECT_THAT(ErrorOf("tenant a weight=1001\n"), HasSubstr("weight must be"));
  for (const char* value : {"", "0ms", "-1ms", "5", "x", "inf", "61m", "0.1us"}) {
    EXPECT_THAT(ErrorOf(absl::StrCat("tenant a inter_token=", value)),
                HasSubstr("inter_token must be none or a time from 1us to 1h"));
  }
  EXPECT_THAT(ErrorOf("token a sha256:00\n"), HasSubstr("a line above"));
  EXPECT_THAT(ErrorOf("token * sha256:00\n"), HasSubstr("a line above"));
  EXPECT_THAT(
      ErrorOf(absl::StrCat("tenant a\ntenant b\n", TokenLine("a", "t"), TokenLine("b", "t"))),
      HasSubstr("f:4: this token is there twice"));
  EXPECT_THAT(ErrorOf("tenant a\ncert a\n"), HasSubstr("cert needs"));
  EXPECT_THAT(ErrorOf("tenant a\ncert a CN=x\ncert a CN=x\n"), HasSubstr("twice"));
  EXPECT_THAT(ErrorOf("tenant a\ncert a CN=\x01\n"), HasSubstr("control byte"));
  EXPECT_THAT(ErrorOf(std::string(kMaxAuthFileBytes + 1, '#')), HasSubstr("larger than"));
  // Whoever wrote the token itself does not find it in the log.
  const std::string error = ErrorOf("tenant a\ntoken a s3cret-token\n");
  EXPECT_THAT(error, HasSubstr("f:2: token needs sha256: and 64 hex digits"));
  EXPECT_THAT(error, Not(HasSubstr("s3cret")));
}

TEST(FailureLimit, RefusesAnAddressForAWhile) {
  FailureLimit limit(60);
  absl::Duration now = absl::Hours(1);
  for (int i = 0; i < 60; ++i) {
    EXPECT_EQ(limit.Wait("a", now), absl::ZeroDuration()) << i;
    limit.Fail("a", now);
  }
  EXPECT_EQ(limit.Wait("a", now), absl::Seconds(1));
  EXPECT_EQ(limit.Wait("b", now), absl::ZeroDuration());
  now += absl::Seconds(1);
  EXPECT_EQ(limit.Wait("a", now), absl::ZeroDuration());
  limit.Fail("a", now);
  EXPECT_GT(limit.Wait("a", now), absl::ZeroDuration());
  now += absl::Minutes(1);
  EXPECT_EQ(limit.Wait("a", now), absl::ZeroDuration());
}

TEST(FailureLimit, RemembersABoundedNumberOfAddresses) {
  FailureLimit limit(2);
  const absl::Duration now = absl::Hours(1);
  for (size_t i = 0; i < 3 * FailureLimit::kMaxPeers; ++i) limit.Fail(absl::StrCat(i), now);
  // The addresses above share a bucket, which is over its bound; those remembered failed once.
  EXPECT_GT(limit.Wait("new", now), absl::ZeroDuration());
  EXPECT_EQ(limit.Wait("0", now), absl::ZeroDuration());
  // Later, all is forgotten.
  limit.Fail("new", now + absl::Hours(2));
  EXPECT_EQ(limit.Wait("newer", now + absl::Hours(2)), absl::ZeroDuration());
}

TEST(FailureLimit, NoneWhenNotAskedFor) {
  FailureLimit limit(0);
  for (int i = 0; i < 1000; ++i) limit.Fail("a", absl::ZeroDuration());
  EXPECT_EQ(limit.Wait("a", absl::ZeroDuration()), absl::ZeroDuration());
}

TEST(PeerAddress, IsWithoutThePort) {
  EXPECT_EQ(PeerAddress("ipv4:10.0.0.1:4711"), "ipv4:10.0.0.1");
  EXPECT_EQ(PeerAddress("ipv6:%5B::1%5D:4711"), "ipv6:%5B::1%5D");
  EXPECT_EQ(PeerAddress("unix"), "unix");
}

class AuthenticatorTest : public testing::Test {
 protected:
  void Write(const std::string& text) {
    // An editor or a secret's mount does the same: a new file takes the old one's place.
    std::ofstream(path_ + ".new") << text;
    ASSERT_EQ(std::rename((path_ + ".new").c_str(), path_.c_str()), 0);
  }
  void Start(AuthOptions options) {
    absl::StatusOr<std::unique_ptr<Authenticator>> auth = Authenticator::Create(options, &clock_);
    ASSERT_TRUE(auth.ok()) << auth.status();
    auth_ = *std::move(auth);
  }
  std::string NameOf(const Credentials& credentials) {
    const absl::StatusOr<TenantRef> tenant = auth_->Check(credentials);
    return tenant.ok() ? (*tenant)->name : absl::StatusCodeToString(tenant.status().code());
  }
  // Until the daemon's own look has been there: it may come between two of a test's.
  void AwaitName(const Credentials& credentials, const std::string& name) {
    for (int i = 0; i < 1000 && NameOf(credentials) != name; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    EXPECT_EQ(NameOf(credentials), name);
  }

  const std::string path_ = testing::TempDir() + "/tenants";
  FakeClock clock_;
  std::unique_ptr<Authenticator> auth_;
};

TEST_F(AuthenticatorTest, EverybodyIsOneTenantWithoutAFile) {
  Start({});
  EXPECT_EQ(NameOf({}), "");
  EXPECT_EQ(NameOf({.authorization = {"Bearer x", "y"}}), "");
}

TEST_F(AuthenticatorTest, TokensOfTheFile) {
  Write("tenant a\n" + TokenLine("a", "secret") + "cert a CN=a\n");
  Start({.tokens_file = path_, .client_certificates = true, .failures_per_minute = 0});
  EXPECT_EQ(NameOf({.authorization = {"Bearer secret"}}), "a");
  EXPECT_EQ(NameOf({.subject = "CN=a"}), "a");
  EXPECT_EQ(NameOf({.authorization = {"Bearer secret"}, .subject = "CN=b"}), "a");
  for (const char* scheme : {"bearer", "BEARER", "bEaReR"}) {
    EXPECT_EQ(NameOf({.authorization = {absl::StrCat(scheme, " secret")}}), "a") << scheme;
  }
  const Credentials refused[] = {
      {},
      {.subject = "CN=b"},
      {.authorization = {""}},
      {.authorization = {"Bearer"}},
      {.authorization = {"Bearer "}},
      {.authorization = {"secret"}},
      {.authorization = {"Bearersecret"}},
      {.authorization = {"Bearer\tsecret"}},
      {.authorization = {"Bearer Secret"}},
      {.authorization = {"Bearer  secret"}},
      {.authorization = {"Bearer secret "}},
      {.authorization = {"Basic secret"}},
      {.authorization = {"Bearer secret", "Bearer secret"}},
      // A wrong token is not made good by a certificate.
      {.authorization = {"Bearer wrong"}, .subject = "CN=a"},
  };
  for (const Credentials& credentials : refused) EXPECT_EQ(NameOf(credentials), "UNAUTHENTICATED");
  const std::string longest = "Bearer " + std::string(1 << 16, 'x');
  EXPECT_EQ(NameOf({.authorization = {longest}}), "UNAUTHENTICATED");
  EXPECT_EQ(auth_->stats().failures.value(), std::size(refused) + 1);
}

// 100,000 guesses that share nothing with a token, or all but the last character.
TEST(AuthTable, ANearGuessTakesAsLongAsAFarOne) {
  const std::string token = "0123456789abcdef0123456789abcdef";
  std::string text;
  for (int i = 0; i < 100; ++i) {
    const std::string tenant = absl::StrCat("t", i);
    absl::StrAppend(&text, "tenant ", tenant, "\n",
                    TokenLine(tenant, i == 50 ? token : absl::StrCat("other", i)));
  }
  const absl::StatusOr<AuthTable> table = AuthTable::Parse(text, "f");
  ASSERT_TRUE(table.ok()) << table.status();
  std::vector<double> near, far;  // of 100 guesses each
  for (int batch = 0; batch < 1000; ++batch) {
    std::string guess = token;
    guess[batch % 2 == 0 ? token.size() - 1 : 0] = 'x';
    const absl::Time started = absl::Now();
    for (int i = 0; i < 100; ++i) {
      guess[16] = static_cast<char>('A' + i % 26);
      ASSERT_EQ(table->FindToken(guess), nullptr);
    }
    (batch % 2 == 0 ? near : far).push_back(absl::ToDoubleNanoseconds(absl::Now() - started) / 100);
  }
  std::sort(near.begin(), near.end());
  std::sort(far.begin(), far.end());
  // The median is of calls that nobody else on the machine held up.
  const double difference = std::abs(near[50] - far[50]);
  std::printf("a wrong token: %.0f ns; near and far differ by %.1f ns\n", near[50], difference);
  EXPECT_LT(difference, 0.1 * near[50]);
}

TEST_F(AuthenticatorTest, SubjectsAreTenantsWithoutAFile) {
  Start({.client_certificates = true});
  EXPECT_EQ(NameOf({.subject = "CN=a,O=A"}), "CN=a,O=A");
  EXPECT_EQ(NameOf({}), "UNAUTHENTICATED");
}

TEST_F(AuthenticatorTest, FailuresOfAnAddressAreBounded) {
  Write("tenant a\n" + TokenLine("a", "secret"));
  Start({.tokens_file = path_, .failures_per_minute = 6});
  for (int i = 0; i < 6; ++i) EXPECT_EQ(NameOf({.peer = "p"}), "UNAUTHENTICATED");
  EXPECT_EQ(NameOf({.authorization = {"Bearer wrong"}, .peer = "p"}), "RESOURCE_EXHAUSTED");
  EXPECT_EQ(NameOf({.authorization = {"Bearer wrong"}, .peer = "q"}), "UNAUTHENTICATED");
  EXPECT_EQ(auth_->stats().limited.value(), 1u);
  // Valid credentials work whatever else their address does, and make nothing good.
  EXPECT_EQ(NameOf({.authorization = {"Bearer secret"}, .peer = "p"}), "a");
  EXPECT_EQ(NameOf({.authorization = {"Bearer wrong"}, .peer = "p"}), "RESOURCE_EXHAUSTED");
  clock_.Advance(absl::Seconds(10));
  EXPECT_EQ(NameOf({.authorization = {"Bearer wrong"}, .peer = "p"}), "UNAUTHENTICATED");
}

TEST_F(AuthenticatorTest, AChangedFileCountsOnceItStandsStill) {
  Write("tenant a\n" + TokenLine("a", "old"));
  Start({.tokens_file = path_, .failures_per_minute = 0});
  const Credentials old_token = {.authorization = {"Bearer old"}};
  const Credentials new_token = {.authorization = {"Bearer new"}};
  Write("tenant b\n" + TokenLine("b", "new"));
  AwaitName(new_token, "b");
  EXPECT_EQ(NameOf(old_token), "UNAUTHENTICATED");
  EXPECT_EQ(auth_->stats().reloads.value(), 1u);

  // A bad file, and none at all, leave what was read before.
  Write("tenant b\ntoken b nonsense\n");
  for (int i = 0; i < 1000 && auth_->stats().reload_failures.value() == 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_EQ(auth_->stats().reload_failures.value(), 1u);
  EXPECT_EQ(NameOf(new_token), "b");
  // An empty one lets nobody in.
  Write("");
  AwaitName(new_token, "UNAUTHENTICATED");
}

class RevocationTest : public AuthenticatorTest {
 protected:
  // A call of whoever has `token`, which notes here what it was ended with.
  LiveCalls::Place Call(const std::string& token, std::vector<absl::Status>* ends) {
    const std::string header = absl::StrCat("Bearer ", token);
    const absl::StatusOr<TenantRef> tenant = auth_->Check({.authorization = {header}});
    EXPECT_TRUE(tenant.ok()) << tenant.status();
    return auth_->Watch(*tenant, [this, ends](absl::Status status) {
      MutexLock lock(&mutex_);
      ends->push_back(std::move(status));
    });
  }
  void Reload(const std::string& text) {
    const uint64_t before = auth_->stats().reloads.value();
    Write(text);
    auth_->Reload();
    for (int i = 0; i < 1000 && auth_->stats().reloads.value() == before; ++i) {
      absl::SleepFor(absl::Milliseconds(10));
    }
    ASSERT_GT(auth_->stats().reloads.value(), before);
  }
  size_t Count(const std::vector<absl::Status>& ends) {
    MutexLock lock(&mutex_);
    return ends.size();
  }

  const std::string a_ = "tenant a\n" + TokenLine("a", "a1");
  const std::string b_ = "tenant b\n" + TokenLine("b", "b1");
  Mutex mutex_;
  std::vector<absl::Status> a_ends_, b_ends_;
};

TEST_F(RevocationTest, CallsOfATenantThatIsGoneEnd) {
  Write(a_ + b_);
  Start({.tokens_file = path_});
  const LiveCalls::Place one = Call("a1", &a_ends_);
  const LiveCalls::Place two = Call("b1", &b_ends_);
  { const LiveCalls::Place over = Call("a1", &a_ends_); }
  // Another token, other limits: whoever was let in still would be.
  Reload("tenant a max_streams=3\n" + TokenLine("a", "a2") + b_);
  EXPECT_EQ(Count(a_ends_), 0u);
  Reload("tenant a\n" + b_);
  EXPECT_EQ(Count(a_ends_), 1u) << "the call that was over is not ended";
  EXPECT_EQ(Count(b_ends_), 0u);
  EXPECT_TRUE(absl::IsUnauthenticated(a_ends_[0]));
  Reload(a_);
  EXPECT_EQ(Count(b_ends_), 1u);
  EXPECT_EQ(auth_->stats().revoked_calls.value(), 2u);
}

TEST_F(RevocationTest, ACallThatBeginsWhileItsTenantGoesEndsAtOnce) {
  Write(a_ + b_);
  Start({.tokens_file = path_});
  const absl::StatusOr<TenantRef> tenant = auth_->Check({.authorization = {"Bearer a1"}});
  ASSERT_TRUE(tenant.ok());
  Reload(b_);
  const LiveCalls::Place place =
      auth_->Watch(*tenant, [this](absl::Status status) { a_ends_.push_back(std::move(status)); });
  ASSERT_EQ(a_ends_.size(), 1u);
  EXPECT_TRUE(absl::IsUnauthenticated(a_ends_[0]));
}

TEST_F(RevocationTest, AFlagLetsThemFinish) {
  Write(a_ + b_);
  Start({.tokens_file = path_, .finish_revoked_calls = true});
  const LiveCalls::Place place = Call("a1", &a_ends_);
  Reload(b_);
  EXPECT_EQ(NameOf({.authorization = {"Bearer a1"}}), "UNAUTHENTICATED");
  EXPECT_EQ(Count(a_ends_), 0u);
}

TEST_F(RevocationTest, ABadFileEndsNothing) {
  Write(a_);
  Start({.tokens_file = path_});
  const LiveCalls::Place place = Call("a1", &a_ends_);
  Write("nonsense");
  auth_->Reload();
  for (int i = 0; i < 1000 && auth_->stats().reload_failures.value() == 0; ++i) {
    absl::SleepFor(absl::Milliseconds(10));
  }
  EXPECT_GE(auth_->stats().reload_failures.value(), 1u);
  EXPECT_EQ(Count(a_ends_), 0u);
}

TEST_F(AuthenticatorTest, AFileThatCannotBeReadIsAnError) {
  const absl::Status status =
      Authenticator::Create({.tokens_file = "/no/such/file"}, &clock_).status();
  EXPECT_THAT(std::string(status.message()),
              HasSubstr("--auth_tokens_file: /no/such/file: No such file"));
  EXPECT_FALSE(Authenticator::Create({.tokens_file = testing::TempDir()}, &clock_).ok());
}

}  // namespace
}  // namespace sluice
