// The keys that exported states are signed with.
//
// A key file holds one key a line, at least 32 bytes written in hex (openssl rand -hex 32); empty
// lines and lines that begin with # do not count. The first key signs, all of them verify: a new
// key goes on top, and the old one out when nothing signed with it is wanted any more.
#ifndef SLUICE_ENGINE_STATE_STATE_KEYS_H_
#define SLUICE_ENGINE_STATE_STATE_KEYS_H_

#include <memory>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

inline constexpr size_t kKeyIdBytes = 16;
inline constexpr size_t kMacBytes = 32;

struct StateKey {
  std::string id;      // kKeyIdBytes: the beginning of the key's SHA-256
  std::string secret;  // bytes
};

// Never empty.
using StateKeys = std::vector<StateKey>;

// INVALID_ARGUMENT naming the line and the rule.
absl::StatusOr<StateKeys> ParseStateKeys(absl::string_view text);
// Refuses a file that others than its owner can read (FAILED_PRECONDITION). Errors name the file.
absl::StatusOr<StateKeys> LoadStateKeys(const std::string& path);

// HMAC-SHA256 over what is added.
class Mac {
 public:
  explicit Mac(absl::string_view secret);
  ~Mac();
  Mac(const Mac&) = delete;
  Mac& operator=(const Mac&) = delete;

  void Add(absl::string_view bytes);
  // kMacBytes; once.
  std::string Finish();

 private:
  struct Context;
  std::unique_ptr<Context> context_;
};

// In a time that depends on the sizes alone.
bool EqualInConstantTime(absl::string_view a, absl::string_view b);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_KEYS_H_
