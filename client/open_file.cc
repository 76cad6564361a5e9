#include "client/open_file.h"

#include <cerrno>
#include <cstring>
#include <filesystem>
#include <system_error>

#include "absl/strings/str_cat.h"

namespace sluice {

absl::Status OpenFile(const std::string& file, std::ifstream* in) {
  const auto error = [&](int code) {
    return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(code)));
  };
  // A directory can be opened, and fails only when it is read.
  std::error_code ignored;
  if (std::filesystem::is_directory(file, ignored)) return error(EISDIR);
  in->open(file, std::ios::binary);
  return *in ? absl::OkStatus() : error(errno);
}

}  // namespace sluice
