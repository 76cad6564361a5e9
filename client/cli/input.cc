#include "client/cli/input.h"

#include <cerrno>
#include <cstring>
#include <fstream>
#include <iterator>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/text.h"

namespace sluice {
namespace {

absl::StatusOr<std::string> ReadAll(std::istream& in, absl::string_view name) {
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", name));
  return text;
}

absl::StatusOr<std::string> ReadSource(const std::vector<std::string>& args,
                                       const std::string& file, const Io& io) {
  if (!file.empty() && !args.empty()) {
    return absl::InvalidArgumentError("text comes from arguments or from a file, not from both");
  }
  if (!file.empty() && file != "-") {
    std::ifstream in(file, std::ios::binary);
    if (!in) return absl::InvalidArgumentError(absl::StrCat(file, ": ", std::strerror(errno)));
    return ReadAll(in, file);
  }
  if (!args.empty() && !(args.size() == 1 && args[0] == "-")) return absl::StrJoin(args, " ");
  if (io.in_is_terminal) io.err << "(reading text from the terminal; end it with Ctrl-D)\n";
  return ReadAll(io.in, "standard input");
}

}  // namespace

absl::StatusOr<std::string> ReadText(const std::vector<std::string>& args, const std::string& file,
                                     const Io& io) {
  absl::StatusOr<std::string> text = ReadSource(args, file, io);
  if (!text.ok()) return text;
  const size_t valid = ValidUtf8Prefix(*text);
  if (valid < text->size()) {
    return absl::InvalidArgumentError(absl::StrCat("the text is not UTF-8 at byte ", valid));
  }
  return text;
}

}  // namespace sluice
