// The file of --auth_tokens_file: who the tenants are, what they may take, and how they show who
// they are. One directive a line; a line that begins with # is a comment.
//
//   # Of the tenants below that do not say.
//   tenant *     max_streams=64
//   tenant acme  max_streams=256 weight=4 inter_token=5ms
//   token  acme  sha256:HEX
//   # The subject of a client certificate.
//   cert   acme  CN=worker,O=Acme
//
// `tenant` comes before the tenant's tokens and certs, any number of each, so that a key can be
// replaced without a gap. Its settings, all optional: max_streams (64), max_queued_requests (64),
// max_queued_tokens (1048576), weight (1), inter_token (none).
//
// `inter_token` is a promise: while a call of the tenant generates, calls of tenants without one
// get no more of a step than it has room for if it is to take no longer, a thirty-second of the
// time at the least. What the device takes for the tenant's own rows no promise makes shorter.
//
// `token` has the SHA-256 of the token's bytes, never the token, which should be random, for
// instance:
//
//   token=$(openssl rand -hex 32); printf %s "$token" | sha256sum
#ifndef SLUICE_SERVER_AUTH_TABLE_H_
#define SLUICE_SERVER_AUTH_TABLE_H_

#include <array>
#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "server/core/tenant.h"

namespace sluice {

using TenantRef = std::shared_ptr<const Tenant>;
using TokenDigest = std::array<uint8_t, 32>;

inline constexpr size_t kMaxAuthFileBytes = 1 << 20;
inline constexpr size_t kMaxTokens = 4096;  // all are looked at for each call
inline constexpr size_t kMaxTokenBytes = 512;

TokenDigest DigestOf(absl::string_view token);

class AuthTable {
 public:
  // `name` is the file's, for errors: INVALID_ARGUMENT "NAME:LINE: what is wrong". They repeat
  // nothing of a token's line: somebody may have written the token itself there.
  static absl::StatusOr<AuthTable> Parse(absl::string_view text, absl::string_view name);

  // The tenant, or null. Takes the same time for every token, known or not.
  TenantRef FindToken(absl::string_view token) const;
  TenantRef FindSubject(absl::string_view subject) const;
  // True if a call of `tenant` could still show who it is: the table has the tenant, and at least
  // one token of it, or one certificate if the call came with a certificate.
  bool Admits(const Tenant& tenant) const;

  const std::map<std::string, TenantRef>& tenants() const { return tenants_; }
  size_t tokens() const { return tokens_.size(); }

 private:
  struct Token {
    TokenDigest digest;
    TenantRef tenant;
  };
  class Parser;

  std::map<std::string, TenantRef> tenants_;
  std::vector<Token> tokens_;
  std::map<std::string, TenantRef, std::less<>> subjects_;
  std::set<std::string> with_token_;        // names of tenants
  std::set<std::string> with_certificate_;  // names of tenants
};

}  // namespace sluice

#endif  // SLUICE_SERVER_AUTH_TABLE_H_
