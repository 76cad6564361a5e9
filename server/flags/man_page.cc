#include <algorithm>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "server/flags/manual.h"

namespace sluice {
namespace {

// A line must not begin with what troff takes for a request.
std::string Escape(absl::string_view text) {
  std::string out = absl::StrReplaceAll(
      text, {{"\\", "\\e"}, {"-", "\\-"}, {"\n.", "\n\\&."}, {"\n'", "\n\\&'"}});
  if (!out.empty() && (out[0] == '.' || out[0] == '\'')) out.insert(0, "\\&");
  return out;
}

std::string Literal(absl::string_view text) {
  return absl::StrCat(".nf\n", Escape(text), "\n.fi\n");
}

void AppendFlags(const std::vector<FlagManual>& flags, absl::string_view heading,
                 std::string* out) {
  const std::string* section = nullptr;
  for (const FlagManual& flag : flags) {
    if (section == nullptr || *section != flag.section) {
      section = &flag.section;
      if (!flag.section.empty()) absl::StrAppend(out, heading, " \"", Escape(flag.section), "\"\n");
    }
    absl::StrAppend(out, ".TP\n.B \\-\\-", Escape(flag.name));
    if (!flag.value.empty()) absl::StrAppend(out, "=", Escape(flag.value));
    absl::StrAppend(out, "\n", Escape(flag.help), "\n");
  }
}

void AppendCommand(const ProgramManual& program, const CommandManual& command, std::string* out) {
  absl::StrAppend(out, ".SS \"", program.name, " ", Escape(command.name), " ",
                  Escape(command.usage), "\"\n",
                  Literal(absl::StripAsciiWhitespace(command.details)), ".PP\nExamples:\n.PP\n",
                  Literal(command.examples));
  // The flags that every command has stand once, under OPTIONS.
  std::vector<FlagManual> own;
  for (const FlagManual& flag : command.flags) {
    const auto same = [&](const FlagManual& other) { return other.name == flag.name; };
    if (std::none_of(program.flags.begin(), program.flags.end(), same)) own.push_back(flag);
  }
  AppendFlags(own, ".PP\n.I", out);
}

}  // namespace

std::string ManPage(const ProgramManual& program) {
  std::string out =
      absl::StrCat(".TH ", absl::AsciiStrToUpper(program.name), " 1 \"\" \"Sluice ",
                   program.version, "\" \"User Commands\"\n", ".SH NAME\n", program.name, " \\- ",
                   Escape(program.summary), "\n.SH SYNOPSIS\n.B ", program.name, "\n",
                   Escape(program.usage), "\n.SH DESCRIPTION\n", Literal(program.description));
  if (!program.commands.empty()) {
    absl::StrAppend(&out, ".SH COMMANDS\n");
    for (const CommandManual& command : program.commands) AppendCommand(program, command, &out);
  }
  absl::StrAppend(&out, ".SH OPTIONS\n");
  AppendFlags(program.flags, ".SS", &out);
  absl::StrAppend(&out, ".SH EXIT STATUS\n");
  for (const auto& [code, meaning] : program.exit_codes) {
    absl::StrAppend(&out, ".TP\n.B ", code, "\n", Escape(meaning), "\n");
  }
  return out;
}

}  // namespace sluice
