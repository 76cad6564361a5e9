// Prints the result of `sluice inspect`.
#ifndef SLUICE_CLIENT_CLI_INSPECT_TEXT_H_
#define SLUICE_CLIENT_CLI_INSPECT_TEXT_H_

#include <cstdint>
#include <optional>
#include <string>

#include "engine/inspect.h"

namespace sluice {

// `memory_bytes`: of a device, for weights and working states; nullopt: nobody asked.
std::string InspectionText(const Inspection& model, std::optional<int64_t> memory_bytes);
// One JSON object over several lines.
std::string InspectionJson(const Inspection& model, std::optional<int64_t> memory_bytes);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_INSPECT_TEXT_H_
