// One call of Generate that prints what comes: the whole of `sluice generate`, and a prompt of
// `sluice run`.
#ifndef SLUICE_CLIENT_CLI_GENERATE_CALL_H_
#define SLUICE_CLIENT_CLI_GENERATE_CALL_H_

#include <optional>

#include "client/cli/command.h"
#include "sluice/v1/generate.pb.h"

namespace sluice {

struct GenerateOutput {
  bool json = false;
  std::optional<bool> stats = std::nullopt;  // default: on a terminal, but for JSON
};

// Returns the exit code.
int CallGenerate(const Invocation& call, const v1::GenerateRequest& request,
                 const GenerateOutput& output);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_GENERATE_CALL_H_
