#include "engine/state/state_keys.h"

#include <fcntl.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/params.h>
#include <openssl/sha.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <utility>

#include "absl/cleanup/cleanup.h"
#include "absl/strings/ascii.h"
#include "absl/strings/escaping.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_split.h"
#include "kernels/check.h"

namespace sluice {
namespace {

constexpr size_t kMinKeyBytes = 32;
constexpr size_t kMaxFileBytes = 64 << 10;

std::string KeyId(absl::string_view secret) {
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(secret.data()), secret.size(), digest);
  return std::string(reinterpret_cast<const char*>(digest), kKeyIdBytes);
}

bool IsHex(absl::string_view text) {
  for (char c : text) {
    if (!absl::ascii_isxdigit(c)) return false;
  }
  return text.size() % 2 == 0;
}

}  // namespace

absl::StatusOr<StateKeys> ParseStateKeys(absl::string_view text) {
  StateKeys keys;
  int line_number = 0;
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    ++line_number;
    line = absl::StripAsciiWhitespace(line);
    if (line.empty() || line[0] == '#') continue;
    if (!IsHex(line)) {
      return absl::InvalidArgumentError(absl::StrCat("line ", line_number, ": not a key in hex"));
    }
    std::string secret = absl::HexStringToBytes(line);
    if (secret.size() < kMinKeyBytes) {
      return absl::InvalidArgumentError(absl::StrCat("line ", line_number, ": a key of ",
                                                     secret.size(), " bytes, must be at least ",
                                                     kMinKeyBytes));
    }
    std::string id = KeyId(secret);
    keys.push_back({std::move(id), std::move(secret)});
  }
  if (keys.empty()) return absl::InvalidArgumentError("holds no key");
  return keys;
}

absl::StatusOr<StateKeys> LoadStateKeys(const std::string& path) {
  const auto error = [&](absl::StatusCode code, absl::string_view what) {
    return absl::Status(code, absl::StrCat("state key file '", path, "': ", what));
  };
  const int fd = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  if (fd < 0) return error(absl::StatusCode::kNotFound, std::strerror(errno));
  const absl::Cleanup close_it = [fd] { close(fd); };
  struct stat info {};
  if (fstat(fd, &info) != 0 || !S_ISREG(info.st_mode)) {
    return error(absl::StatusCode::kInvalidArgument, "is not a file");
  }
  if ((info.st_mode & (S_IRWXG | S_IRWXO)) != 0) {
    return error(absl::StatusCode::kFailedPrecondition,
                 "others than its owner can read or write it (chmod 600)");
  }
  std::string text(kMaxFileBytes, '\0');
  size_t size = 0;
  while (size < text.size()) {
    const ssize_t got = read(fd, &text[size], text.size() - size);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return error(absl::StatusCode::kUnavailable, std::strerror(errno));
    if (got == 0) break;
    size += static_cast<size_t>(got);
  }
  if (size == text.size()) return error(absl::StatusCode::kInvalidArgument, "is too large");
  text.resize(size);
  absl::StatusOr<StateKeys> keys = ParseStateKeys(text);
  if (!keys.ok()) return error(keys.status().code(), keys.status().message());
  return keys;
}

struct Mac::Context {
  EVP_MAC* mac = EVP_MAC_fetch(nullptr, "HMAC", nullptr);
  EVP_MAC_CTX* context = EVP_MAC_CTX_new(mac);
  ~Context() {
    EVP_MAC_CTX_free(context);
    EVP_MAC_free(mac);
  }
};

Mac::Mac(absl::string_view secret) : context_(std::make_unique<Context>()) {
  char digest[] = "SHA256";
  const OSSL_PARAM params[] = {OSSL_PARAM_construct_utf8_string("digest", digest, 0),
                               OSSL_PARAM_construct_end()};
  SLUICE_CHECK(EVP_MAC_init(context_->context,
                            reinterpret_cast<const unsigned char*>(secret.data()), secret.size(),
                            params) == 1);
}

Mac::~Mac() = default;

void Mac::Add(absl::string_view bytes) {
  SLUICE_CHECK(EVP_MAC_update(context_->context,
                              reinterpret_cast<const unsigned char*>(bytes.data()),
                              bytes.size()) == 1);
}

std::string Mac::Finish() {
  std::string out(kMacBytes, '\0');
  size_t size = 0;
  SLUICE_CHECK(EVP_MAC_final(context_->context, reinterpret_cast<unsigned char*>(out.data()), &size,
                             out.size()) == 1 &&
               size == kMacBytes);
  return out;
}

bool EqualInConstantTime(absl::string_view a, absl::string_view b) {
  return a.size() == b.size() && CRYPTO_memcmp(a.data(), b.data(), a.size()) == 0;
}

}  // namespace sluice
