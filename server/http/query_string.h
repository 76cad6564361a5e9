// The query of a request's target: "/v1/sessions?page_size=7&labels.user=42".
#ifndef SLUICE_SERVER_HTTP_QUERY_STRING_H_
#define SLUICE_SERVER_HTTP_QUERY_STRING_H_

#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

// The names and values behind '?', decoded, in order; "+" is a space. INVALID_ARGUMENT for a '%'
// that is not followed by two hexadecimal digits, and for a name without '='. Pure.
absl::StatusOr<std::vector<std::pair<std::string, std::string>>> ParseQuery(
    absl::string_view target);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_QUERY_STRING_H_
