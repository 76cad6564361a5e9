// What --help and --version print.
#ifndef SLUICE_SERVER_HELP_H_
#define SLUICE_SERVER_HELP_H_

#include <string>

#include "server/flags/manual.h"

namespace sluice {

std::string HelpText();
std::string HelpMarkdown();  // the table of server/README.md
// The flags for the man page and for completion.
ProgramManual ServerManual();
// The version, and a line for each shared library of this process: its name, whether it came with
// the program, and its file.
std::string VerboseVersion();

}  // namespace sluice

#endif  // SLUICE_SERVER_HELP_H_
