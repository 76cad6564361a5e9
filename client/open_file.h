// Opens files that users name.
#ifndef SLUICE_CLIENT_OPEN_FILE_H_
#define SLUICE_CLIENT_OPEN_FILE_H_

#include <fstream>
#include <string>

#include "absl/status/status.h"

namespace sluice {

// Opens a file for reading bytes. INVALID_ARGUMENT names the file and the reason, also where it is
// a directory, which a stream would open and then fail on, by an exception.
absl::Status OpenFile(const std::string& file, std::ifstream* in);

}  // namespace sluice

#endif  // SLUICE_CLIENT_OPEN_FILE_H_
