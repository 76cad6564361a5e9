// The OpenAPI document at /openapi.json: server/http/openapi.json.
#ifndef SLUICE_SERVER_HTTP_OPENAPI_H_
#define SLUICE_SERVER_HTTP_OPENAPI_H_

#include "absl/strings/string_view.h"

namespace sluice {

// Describes every path that the port serves; a test compares it with HttpDoor::Paths.
absl::string_view OpenApi();

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAPI_H_
