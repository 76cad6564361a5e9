#include "client/cli/input.h"

#include <fstream>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "client/cli/text.h"
#include "client/open_file.h"

namespace sluice {
namespace {

constexpr size_t kPieceBytes = 64 << 10;

absl::StatusOr<std::string> ReadAll(std::istream& in, absl::string_view name) {
  std::string text;
  std::string piece(kPieceBytes, '\0');
  // The stream's own read catches what its buffer throws, which an iterator does not.
  while (in.read(piece.data(), static_cast<std::streamsize>(piece.size())) || in.gcount() > 0) {
    text.append(piece, 0, static_cast<size_t>(in.gcount()));
  }
  if (in.bad()) return absl::InvalidArgumentError(absl::StrCat("cannot read ", name));
  in.clear();  // the end is no failure
  return text;
}

absl::StatusOr<std::string> ReadSource(const std::vector<std::string>& args,
                                       const std::string& file, const Io& io) {
  if (!file.empty() && !args.empty()) {
    return absl::InvalidArgumentError("text comes from arguments or from a file, not from both");
  }
  if (!file.empty() && file != "-") {
    std::ifstream in;
    const absl::Status opened = OpenFile(file, &in);
    if (!opened.ok()) return opened;
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
