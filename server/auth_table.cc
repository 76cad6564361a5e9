#include "server/auth_table.h"

#include <openssl/crypto.h>
#include <openssl/sha.h>

#include <algorithm>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/time/time.h"

namespace sluice {
namespace {

constexpr size_t kMaxTenantName = 64;
constexpr size_t kMaxSubject = 512;
constexpr absl::string_view kDigestPrefix = "sha256:";
constexpr int64_t kMaxLimit = int64_t{1} << 40;
constexpr int64_t kMaxWeight = 1000;
constexpr absl::Duration kLeastInterToken = absl::Microseconds(1);
constexpr absl::Duration kMostInterToken = absl::Hours(1);
constexpr TenantLimits kDefaultLimits = {
    .max_streams = 64, .max_queued_requests = 64, .max_queued_tokens = 1 << 20};

bool IsTenantName(absl::string_view name) {
  const auto legal = [](char c) {
    return absl::ascii_isalnum(static_cast<unsigned char>(c)) || c == '.' || c == '_' || c == '-';
  };
  return !name.empty() && name.size() <= kMaxTenantName &&
         std::all_of(name.begin(), name.end(), legal);
}

bool IsPrintable(absl::string_view text) {
  return std::all_of(text.begin(), text.end(), [](char c) { return c >= ' ' && c != 0x7f; });
}

// The first word of *text, which loses it and the spaces around it.
absl::string_view TakeWord(absl::string_view* text) {
  *text = absl::StripLeadingAsciiWhitespace(*text);
  const absl::string_view word = text->substr(0, text->find_first_of(" \t"));
  *text = absl::StripLeadingAsciiWhitespace(text->substr(word.size()));
  return word;
}

bool ParseDigest(absl::string_view text, TokenDigest* digest) {
  if (!absl::ConsumePrefix(&text, kDigestPrefix) || text.size() != 2 * digest->size()) return false;
  const auto is_hex = [](char c) { return absl::ascii_isxdigit(static_cast<unsigned char>(c)); };
  if (!std::all_of(text.begin(), text.end(), is_hex)) return false;
  const std::string bytes = absl::HexStringToBytes(text);
  std::copy(bytes.begin(), bytes.end(), digest->begin());
  return true;
}

absl::Status ParseInterToken(absl::string_view text, absl::Duration* inter_token) {
  if (text == "none") {
    *inter_token = absl::InfiniteDuration();
    return absl::OkStatus();
  }
  if (absl::ParseDuration(text, inter_token) && *inter_token >= kLeastInterToken &&
      *inter_token <= kMostInterToken) {
    return absl::OkStatus();
  }
  return absl::InvalidArgumentError(
      "inter_token must be none or a time from 1us to 1h, such as 5ms");
}

absl::Status ParseSetting(absl::string_view setting, TenantLimits* limits) {
  const std::pair<absl::string_view, absl::string_view> parts =
      absl::StrSplit(setting, absl::MaxSplits('=', 1));
  if (parts.first == "inter_token") return ParseInterToken(parts.second, &limits->inter_token);
  int64_t* field = nullptr;
  int64_t weight = 0;
  if (parts.first == "max_streams") field = &limits->max_streams;
  if (parts.first == "max_queued_requests") field = &limits->max_queued_requests;
  if (parts.first == "max_queued_tokens") field = &limits->max_queued_tokens;
  if (parts.first == "weight") field = &weight;
  if (field == nullptr) {
    return absl::InvalidArgumentError(
        "a tenant has max_streams, max_queued_requests, max_queued_tokens, weight and inter_token "
        "alone");
  }
  const int64_t most = field == &weight ? kMaxWeight : kMaxLimit;
  if (!absl::SimpleAtoi(parts.second, field) || *field < 1 || *field > most) {
    return absl::InvalidArgumentError(
        absl::StrCat(parts.first, " must be a whole number in [1, ", most, "]"));
  }
  if (field == &weight) limits->weight = static_cast<int32_t>(weight);
  return absl::OkStatus();
}

}  // namespace

TokenDigest DigestOf(absl::string_view token) {
  TokenDigest digest;
  SHA256(reinterpret_cast<const unsigned char*>(token.data()), token.size(), digest.data());
  return digest;
}

class AuthTable::Parser {
 public:
  explicit Parser(AuthTable* table) : table_(*table) {}

  absl::Status Line(absl::string_view line) {
    const absl::string_view directive = TakeWord(&line);
    if (directive.empty() || directive[0] == '#') return absl::OkStatus();
    if (!IsPrintable(line)) return Error("a control byte");
    const absl::string_view name = TakeWord(&line);
    if (directive == "tenant") return TenantLine(name, line);
    if (directive != "token" && directive != "cert") {
      return Error("a line begins with tenant, token, cert or #");
    }
    const auto tenant = table_.tenants_.find(std::string(name));
    if (tenant == table_.tenants_.end()) {
      return Error(absl::StrCat(directive, " needs the name of a tenant from a line above"));
    }
    return directive == "token" ? TokenLine(tenant->second, line) : CertLine(tenant->second, line);
  }

 private:
  static absl::Status Error(absl::string_view what) { return absl::InvalidArgumentError(what); }

  absl::Status TenantLine(absl::string_view name, absl::string_view settings) {
    if (name != "*" && !IsTenantName(name)) {
      return Error("a tenant's name is 1 to 64 letters, digits, '.', '_' and '-'");
    }
    TenantLimits limits = defaults_;
    while (!settings.empty()) {
      absl::Status status = ParseSetting(TakeWord(&settings), &limits);
      if (!status.ok()) return status;
    }
    if (name == "*") {
      defaults_ = limits;
      return absl::OkStatus();
    }
    auto tenant = std::make_shared<const Tenant>(Tenant{std::string(name), limits});
    if (table_.tenants_.emplace(name, std::move(tenant)).second) return absl::OkStatus();
    return Error(absl::StrCat("tenant ", name, " is there twice"));
  }

  absl::Status TokenLine(const TenantRef& tenant, absl::string_view text) {
    Token token{{}, tenant};
    if (!ParseDigest(text, &token.digest)) return Error("token needs sha256: and 64 hex digits");
    const auto same = [&](const Token& other) { return other.digest == token.digest; };
    if (std::any_of(table_.tokens_.begin(), table_.tokens_.end(), same)) {
      return Error("this token is there twice");
    }
    if (table_.tokens_.size() == kMaxTokens) {
      return Error(absl::StrCat("more than ", kMaxTokens, " tokens"));
    }
    table_.tokens_.push_back(std::move(token));
    table_.with_token_.insert(tenant->name);
    return absl::OkStatus();
  }

  absl::Status CertLine(const TenantRef& tenant, absl::string_view subject) {
    if (subject.empty() || subject.size() > kMaxSubject) {
      return Error("cert needs a certificate's subject, such as CN=name,O=company");
    }
    auto holder = std::make_shared<Tenant>(*tenant);
    holder->by_certificate = true;
    if (!table_.subjects_.emplace(subject, std::move(holder)).second) {
      return Error("this certificate's subject is there twice");
    }
    table_.with_certificate_.insert(tenant->name);
    return absl::OkStatus();
  }

  AuthTable& table_;
  TenantLimits defaults_ = kDefaultLimits;
};

absl::StatusOr<AuthTable> AuthTable::Parse(absl::string_view text, absl::string_view name) {
  if (text.size() > kMaxAuthFileBytes) {
    return absl::InvalidArgumentError(absl::StrCat(name, ": larger than ", kMaxAuthFileBytes));
  }
  AuthTable table;
  Parser parser(&table);
  int64_t number = 0;
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    ++number;
    const absl::Status status = parser.Line(absl::StripTrailingAsciiWhitespace(line));
    if (!status.ok()) {
      return absl::InvalidArgumentError(absl::StrCat(name, ":", number, ": ", status.message()));
    }
  }
  return table;
}

TenantRef AuthTable::FindToken(absl::string_view token) const {
  const TokenDigest digest = DigestOf(token);
  size_t found = tokens_.size();
  for (size_t i = 0; i < tokens_.size(); ++i) {
    // The mask is all ones for the equal digest, so that no branch depends on a secret.
    const int differs = CRYPTO_memcmp(digest.data(), tokens_[i].digest.data(), digest.size());
    const size_t mask = size_t{0} - static_cast<size_t>(differs == 0);
    found = (found & ~mask) | (i & mask);
  }
  return found < tokens_.size() ? tokens_[found].tenant : nullptr;
}

bool AuthTable::Admits(const Tenant& tenant) const {
  return (tenant.by_certificate ? with_certificate_ : with_token_).count(tenant.name) > 0;
}

TenantRef AuthTable::FindSubject(absl::string_view subject) const {
  const auto it = subjects_.find(std::string(subject));
  return it == subjects_.end() ? nullptr : it->second;
}

}  // namespace sluice
