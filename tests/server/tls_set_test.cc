#include "server/tls_set.h"

#include <fstream>
#include <string>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "gmock/gmock.h"
#include "gtest/gtest.h"
#include "tests/server/make_certificate.h"

namespace sluice {
namespace {

using ::testing::HasSubstr;
using ::testing::StartsWith;

class TlsSetTest : public testing::Test {
 protected:
  void SetUp() override {
    Write(files_.cert, one_.cert);
    Write(files_.key, one_.key);
    Write(files_.client_ca, two_.cert);
  }
  static void Write(const std::string& path, const std::string& text) {
    std::ofstream(path, std::ios::binary) << text;
  }
  std::string ErrorOf(absl::Time now) const {
    const absl::StatusOr<TlsSet> set = ReadTlsSet(files_, now);
    EXPECT_TRUE(set.ok() || absl::IsInvalidArgument(set.status())) << set.status();
    return std::string(set.status().message());
  }
  std::string Error() const { return ErrorOf(now_); }

  const absl::Time now_ = absl::Now();
  const TestCertificate one_ = MakeCertificate(now_, {.name = "one"});
  const TestCertificate two_ = MakeCertificate(now_, {.name = "two"});
  TlsFiles files_{testing::TempDir() + "/tls_set_cert", testing::TempDir() + "/tls_set_key",
                  testing::TempDir() + "/tls_set_ca"};
};

TEST_F(TlsSetTest, AGoodSetIsWrittenAnew) {
  Write(files_.cert, absl::StrCat("a comment\n", one_.key, one_.cert, "\n", two_.cert, "the end"));
  const absl::StatusOr<TlsSet> set = ReadTlsSet(files_, now_);
  ASSERT_TRUE(set.ok()) << set.status();
  EXPECT_EQ(set->cert, one_.cert + two_.cert);
  EXPECT_EQ(set->key, one_.key);
  EXPECT_THAT(set->client_ca, HasSubstr("CERTIFICATE"));
  EXPECT_LT(absl::AbsDuration(set->expires - (now_ + absl::Hours(24))), absl::Seconds(2));
  files_.client_ca.clear();
  EXPECT_EQ(ReadTlsSet(files_, now_)->client_ca, "");
}

TEST_F(TlsSetTest, WhatIsMissingOrEmptyIsNamed) {
  for (const std::string* path : {&files_.cert, &files_.key, &files_.client_ca}) {
    SetUp();
    ASSERT_EQ(std::remove(path->c_str()), 0);
    EXPECT_THAT(Error(),
                testing::EndsWith(absl::StrCat("=", *path, ": No such file or directory")));
    Write(*path, "");
    EXPECT_THAT(Error(), testing::EndsWith(absl::StrCat("=", *path, ": the file is empty")));
    Write(*path, std::string((1 << 20) + 1, '\n'));
    EXPECT_THAT(Error(), HasSubstr("larger than 1048576 bytes"));
    Write(*path, "not PEM");
    EXPECT_THAT(Error(), HasSubstr(*path));
  }
  EXPECT_THAT(Error(), StartsWith("--tls_client_ca="));
}

// A file that another program has written as far as any byte is refused, or lacks nothing.
TEST_F(TlsSetTest, NoBeginningOfAFileIsTakenForIt) {
  const std::string chain = one_.cert + two_.cert;
  for (size_t size = 0; size < chain.size(); ++size) {
    Write(files_.cert, chain.substr(0, size));
    const bool whole_blocks = size + 1 == chain.size() ||  // the last end of line alone is missing
                              size == one_.cert.size() || size + 1 == one_.cert.size();
    EXPECT_EQ(Error().empty(), whole_blocks) << size << " of " << chain.size();
  }
  Write(files_.cert, chain);
  for (size_t size = 0; size + 1 < one_.key.size(); ++size) {
    Write(files_.key, one_.key.substr(0, size));
    EXPECT_THAT(Error(), StartsWith("--tls_key=")) << size;
  }
  Write(files_.key, one_.key);
  for (size_t size = 0; size + 1 < two_.cert.size(); ++size) {
    Write(files_.client_ca, two_.cert.substr(0, size));
    EXPECT_THAT(Error(), StartsWith("--tls_client_ca=")) << size;
  }
}

TEST_F(TlsSetTest, AKeyMustBeTheCertificates) {
  Write(files_.key, two_.key);
  EXPECT_EQ(Error(), absl::StrCat("--tls_key=", files_.key, ": key values mismatch"));
  Write(files_.key, MakeCertificate(now_, {.rsa_bits = 2048}).key);
  EXPECT_EQ(Error(), absl::StrCat("--tls_key=", files_.key, ": key type mismatch"));
  Write(files_.key, one_.encrypted_key);
  EXPECT_THAT(Error(), HasSubstr("the key is encrypted; it must have no passphrase"));
}

TEST_F(TlsSetTest, AKeyThatOpensslFindsTooSmallIsRefused) {
  const TestCertificate small = MakeCertificate(now_, {.rsa_bits = 512});
  Write(files_.cert, small.cert);
  Write(files_.key, small.key);
  EXPECT_EQ(Error(), absl::StrCat("--tls_cert=", files_.cert, ": ee key too small"));
}

TEST_F(TlsSetTest, DatesCount) {
  EXPECT_EQ(Error(), "");
  EXPECT_THAT(ErrorOf(now_ + absl::Hours(25)), HasSubstr("--tls_cert="));
  EXPECT_THAT(ErrorOf(now_ + absl::Hours(25)), HasSubstr("the certificate expired at 20"));
  EXPECT_THAT(ErrorOf(now_ - absl::Hours(2)), HasSubstr("the certificate is not valid before 20"));
  // One authority that is valid is enough: bundles keep old ones for a while.
  const TestCertificate old =
      MakeCertificate(now_, {.begins = now_ - absl::Hours(48), .ends = now_ - absl::Hours(24)});
  Write(files_.client_ca, old.cert + two_.cert);
  EXPECT_EQ(Error(), "");
  Write(files_.client_ca, old.cert);
  EXPECT_THAT(Error(), HasSubstr(files_.client_ca + ": the certificate expired at 20"));
}

}  // namespace
}  // namespace sluice
