// Guarded reading of JSON that somebody else wrote: no exceptions, no recursion, errors with a
// position.
#ifndef SLUICE_ENGINE_CHECKPOINT_JSON_TEXT_H_
#define SLUICE_ENGINE_CHECKPOINT_JSON_TEXT_H_

#include <cstdint>
#include <string>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "nlohmann/json.hpp"

namespace sluice {

// Deeper nesting than this is refused.
inline constexpr int kMaxJsonDepth = 64;

// Parses `text`, which must be one JSON object. `file_name` begins each error. A key given twice
// counts with its last value, as in Python. The caller bounds the size of `text`.
absl::StatusOr<nlohmann::json> ParseJsonObject(absl::string_view text, absl::string_view file_name);

// `text` as an error message may hold it: one printable line of bounded length.
std::string Printable(absl::string_view text);

// A JSON value as an error message may hold it: its text, or only its kind when that would be long.
std::string PrintableValue(const nlohmann::json& value);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_JSON_TEXT_H_
