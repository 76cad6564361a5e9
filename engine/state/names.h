// Names of files and directories under a session directory.
#ifndef SLUICE_ENGINE_STATE_NAMES_H_
#define SLUICE_ENGINE_STATE_NAMES_H_

#include <cstdint>
#include <optional>
#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

inline constexpr absl::string_view kTenantPrefix = "t-";
inline constexpr absl::string_view kSessionPrefix = "s-";
inline constexpr absl::string_view kRecordSuffix = ".session";
inline constexpr absl::string_view kStateSuffix = ".state";
inline constexpr size_t kMaxName = 255;  // bytes of a name on most file systems

uint64_t RandomNumber();
// 16 hexadecimal digits that nobody else has.
std::string RandomName();

// A name that is safe as part of a path, and back; false for what EscapeName cannot have made.
std::string EscapeName(absl::string_view prefix, absl::string_view name);
bool UnescapeName(absl::string_view prefix, absl::string_view escaped, std::string* name);

std::string TenantDir(absl::string_view dir, absl::string_view tenant);
std::string SessionDir(absl::string_view dir, absl::string_view tenant, absl::string_view id);
std::string RecordName(uint64_t generation);
// The number that the name of a record or a state begins with.
std::optional<uint64_t> GenerationOf(absl::string_view name);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_NAMES_H_
