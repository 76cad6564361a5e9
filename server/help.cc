#include "server/help.h"

#include <link.h>

#include <filesystem>
#include <map>
#include <system_error>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/string_view.h"
#include "server/exit_codes.h"
#include "server/flag_table.h"
#include "server/options.h"

namespace sluice {
namespace {

constexpr char kSummary[] =
    "sluiced serves a language model with linear attention over gRPC and HTTP.";
constexpr char kSources[] =
    "Each flag can also be given as SLUICE_<FLAG> in the environment, or as a line of "
    "--flagfile=FILE; the\n"
    "command line wins. BYTES may be written as 64K, 1.5G or 2GiB, in powers of 1,024.";

std::map<std::string, std::string> Defaults() {
  std::map<std::string, std::string> defaults;
  for (const FlagValue& flag : FlagValues(ServerOptions())) defaults[flag.name] = flag.text;
  return defaults;
}

// Calls the vector's push_back with the file of each shared library; the program's own is "".
int AddLibrary(dl_phdr_info* info, size_t, void* names) {
  if (info->dlpi_name != nullptr && *info->dlpi_name == '/') {
    static_cast<std::vector<std::string>*>(names)->emplace_back(info->dlpi_name);
  }
  return 0;
}

}  // namespace

std::string HelpText() {
  std::string out = absl::StrCat(kSummary, "\n\n  sluiced --model=DIR [--listen=HOST:PORT] ...\n\n",
                                 kSources, "\n\nExit codes:\n");
  for (const ExitCode& exit : kExitCodes) {
    absl::StrAppend(&out, "  ", absl::StrFormat("%-3d", exit.code), " ", exit.meaning, "\n");
  }
  const std::map<std::string, std::string> defaults = Defaults();
  absl::string_view group;
  for (const ServerFlag& flag : ServerFlags()) {
    if (group != flag.group) absl::StrAppend(&out, "\n", group = flag.group, ":\n");
    const std::string& value = defaults.at(flag.name);
    absl::StrAppend(&out, "  --", flag.name, "=", flag.metavar);
    if (!value.empty()) absl::StrAppend(&out, "  (default: ", value, ")");
    absl::StrAppend(&out, "\n      ", flag.help, "\n");
  }
  absl::StrAppend(&out,
                  "\nAlso:\n  --flagfile=FILE, --version, --version --verbose (with the shared "
                  "libraries), -h, --help,\n"
                  "  --help=markdown, --help=metrics, --help=man, --help=bash, --help=zsh\n");
  return out;
}

std::string HelpMarkdown() {
  std::string out = "| flag | default | meaning |\n|---|---|---|\n";
  const std::map<std::string, std::string> defaults = Defaults();
  absl::string_view group;
  for (const ServerFlag& flag : ServerFlags()) {
    if (group != flag.group) absl::StrAppend(&out, "| **", group = flag.group, "** | | |\n");
    const std::string& value = defaults.at(flag.name);
    absl::StrAppend(&out, "| `--", flag.name, "=",
                    absl::StrReplaceAll(flag.metavar, {{"|", "\\|"}}), "` | ",
                    value.empty() ? "" : absl::StrCat("`", value, "`"), " | ", flag.help, " |\n");
  }
  return out;
}

ProgramManual ServerManual() {
  ProgramManual manual;
  manual.name = "sluiced";
  manual.version = Version();
  manual.summary = "serves language models with linear attention over gRPC and HTTP";
  manual.usage = "--model=DIR [--listen=HOST:PORT] ...";
  manual.description = kSources;
  const std::map<std::string, std::string> defaults = Defaults();
  for (const ServerFlag& flag : ServerFlags()) {
    FlagManual entry = {flag.group, flag.name, flag.metavar, flag.help};
    entry.completes = CompletionOf(entry.value, &entry.words);
    if (!flag.choices.empty()) {
      entry.completes = FlagManual::Completes::kWords;
      entry.words.assign(flag.choices.begin(), flag.choices.end());
    }
    const std::string& value = defaults.at(flag.name);
    if (!value.empty()) absl::StrAppend(&entry.help, " Default: ", value, ".");
    manual.flags.push_back(std::move(entry));
  }
  for (const FlagManual& flag :
       {FlagManual{"Other", "flagfile", "FILE", "Flags are read from this file, one a line.",
                   FlagManual::Completes::kFile},
        FlagManual{"Other", "version", "",
                   "Prints the version; with --verbose, the libraries too."},
        FlagManual{"Other", "help", "", "Prints the flags."}}) {
    manual.flags.push_back(flag);
  }
  for (const ExitCode& exit : kExitCodes) manual.exit_codes.emplace_back(exit.code, exit.meaning);
  return manual;
}

std::string VerboseVersion() {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  dl_iterate_phdr(&AddLibrary, &files);
  std::error_code error;
  const fs::path own = fs::read_symlink("/proc/self/exe", error).parent_path().parent_path();
  std::string out = absl::StrCat("sluiced ", Version(), "\n");
  for (const std::string& file : files) {
    // The file behind the links often has the whole version in its name.
    const fs::path whole = fs::weakly_canonical(file, error);
    absl::StrAppendFormat(&out, "  %-40s %-8s %s\n", fs::path(file).filename().string(),
                          whole.parent_path() == own / "lib/sluice" ? "bundled" : "system",
                          whole.string());
  }
  return out;
}

}  // namespace sluice
