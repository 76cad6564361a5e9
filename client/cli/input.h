// Reads a command's text or token ids from where the user gave them.
#ifndef SLUICE_CLIENT_CLI_INPUT_H_
#define SLUICE_CLIENT_CLI_INPUT_H_

#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "client/cli/io.h"

namespace sluice {

// The arguments joined by spaces; or the named file; or standard input, when there are no
// arguments, they are "-", or the file is "-". INVALID_ARGUMENT for arguments beside a file and for
// text that is not UTF-8.
absl::StatusOr<std::string> ReadText(const std::vector<std::string>& args, const std::string& file,
                                     const Io& io);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_INPUT_H_
