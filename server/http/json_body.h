// A request's body as a JSON object.
#ifndef SLUICE_SERVER_HTTP_JSON_BODY_H_
#define SLUICE_SERVER_HTTP_JSON_BODY_H_

#include <nlohmann/json.hpp>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// INVALID_ARGUMENT: not a JSON object in UTF-8, nested too deeply, or a number is out of range.
// Pure.
absl::StatusOr<nlohmann::json> ParseJsonBody(absl::string_view body);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_JSON_BODY_H_
