// Runs `sluice` inside a process: command line in, exit code out.
#ifndef SLUICE_CLIENT_CLI_RUN_H_
#define SLUICE_CLIENT_CLI_RUN_H_

#include <string>
#include <vector>

#include "client/cli/io.h"

namespace sluice {

// `args` without the program's name.
int RunSluice(const std::vector<std::string>& args, const Io& io);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_RUN_H_
