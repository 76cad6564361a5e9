#include "engine/state/names.h"

#include <sys/random.h>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {
namespace {

bool IsPlain(char c) { return absl::ascii_isalnum(c) || c == '_' || c == '-'; }

}  // namespace

uint64_t RandomNumber() {
  uint64_t bits = 0;
  SLUICE_CHECK(getrandom(&bits, sizeof(bits), 0) == sizeof(bits));
  return bits;
}

std::string RandomName() { return absl::StrCat(absl::Hex(RandomNumber(), absl::kZeroPad16)); }

std::string EscapeName(absl::string_view prefix, absl::string_view name) {
  std::string out(prefix);
  for (char c : name) {
    if (IsPlain(c)) {
      out += c;
    } else {
      absl::StrAppend(&out, "=", absl::Hex(static_cast<uint8_t>(c), absl::kZeroPad2));
    }
  }
  return out;
}

bool UnescapeName(absl::string_view prefix, absl::string_view escaped, std::string* name) {
  if (!absl::StartsWith(escaped, prefix)) return false;
  name->clear();
  for (size_t i = prefix.size(); i < escaped.size(); ++i) {
    uint32_t code = 0;
    if (IsPlain(escaped[i])) {
      *name += escaped[i];
    } else if (escaped[i] == '=' && absl::SimpleHexAtoi(escaped.substr(i + 1, 2), &code)) {
      *name += static_cast<char>(code);
      i += 2;
    } else {
      return false;
    }
  }
  return EscapeName(prefix, *name) == escaped;
}

std::string TenantDir(absl::string_view dir, absl::string_view tenant) {
  return absl::StrCat(dir, "/sessions/", EscapeName(kTenantPrefix, tenant));
}

std::string SessionDir(absl::string_view dir, absl::string_view tenant, absl::string_view id) {
  return absl::StrCat(TenantDir(dir, tenant), "/", EscapeName(kSessionPrefix, id));
}

std::string RecordName(uint64_t generation) {
  return absl::StrCat(absl::Hex(generation, absl::kZeroPad16), kRecordSuffix);
}

std::optional<uint64_t> GenerationOf(absl::string_view name) {
  uint64_t generation = 0;
  if (name.size() < 16 || !absl::SimpleHexAtoi(name.substr(0, 16), &generation)) return {};
  return generation;
}

}  // namespace sluice
