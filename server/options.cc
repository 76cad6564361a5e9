#include "server/options.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <limits>
#include <optional>
#include <utility>
#include <variant>

#include "absl/flags/marshalling.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/strip.h"
#include "server/exit_codes.h"
#include "server/flag_table.h"

#ifndef SLUICE_VERSION
#error "SLUICE_VERSION comes from CMake"
#endif

namespace sluice {
namespace {

using Options = ServerOptions;

constexpr int kMaxFlagfileDepth = 4;

const ServerFlag* FindFlag(absl::string_view name) {
  for (const ServerFlag& flag : ServerFlags()) {
    if (name == flag.name) return &flag;
  }
  return nullptr;
}

std::string FormatBound(double bound, bool duration) {
  if (duration) return absl::FormatDuration(absl::Seconds(bound));
  return absl::StrFormat("%.0f", bound);
}

absl::Status CheckBounds(const ServerFlag& flag, double value, bool duration) {
  if (value >= flag.min && value <= flag.max) return absl::OkStatus();
  if (flag.max == kNoBound) {
    return absl::InvalidArgumentError(
        absl::StrCat("must be at least ", FormatBound(flag.min, duration)));
  }
  return absl::InvalidArgumentError(absl::StrCat("must be in [", FormatBound(flag.min, duration),
                                                 ", ", FormatBound(flag.max, duration), "]"));
}

// A choice that ends in ":N" stands for every small number in N's place.
bool Matches(absl::string_view choice, absl::string_view text) {
  if (!absl::ConsumeSuffix(&choice, ":N")) return text == choice;
  return absl::ConsumePrefix(&text, choice) && absl::ConsumePrefix(&text, ":") && !text.empty() &&
         text.size() <= 4 && std::all_of(text.begin(), text.end(), absl::ascii_isdigit);
}

absl::Status Assign(const ServerFlag& flag, const std::string& text, std::string* value) {
  const auto is = [&](const char* choice) { return Matches(choice, text); };
  if (!flag.choices.empty() && std::none_of(flag.choices.begin(), flag.choices.end(), is)) {
    return absl::InvalidArgumentError(absl::StrCat("must be ", absl::StrJoin(flag.choices, ", ")));
  }
  *value = text;
  return absl::OkStatus();
}

template <typename Number>
absl::Status Assign(const ServerFlag& flag, const std::string& text, Number* value) {
  std::string error;
  Number parsed{};
  if (!absl::ParseFlag(text, &parsed, &error)) {
    return absl::InvalidArgumentError(
        absl::StrCat("is not a whole number up to ", std::numeric_limits<Number>::max()));
  }
  absl::Status status = CheckBounds(flag, static_cast<double>(parsed), false);
  if (status.ok()) *value = parsed;
  return status;
}

absl::Status Assign(const ServerFlag&, const std::string& text, bool* value) {
  std::string error;
  if (absl::ParseFlag(text, value, &error)) return absl::OkStatus();
  return absl::InvalidArgumentError("must be true or false");
}

absl::Status Assign(const ServerFlag& flag, const std::string& text, absl::Duration* value) {
  std::string error;
  absl::Duration parsed;
  if (!absl::AbslParseFlag(text, &parsed, &error)) {
    return absl::InvalidArgumentError("is not a duration such as 500ms, 10s, 1h30m or inf");
  }
  absl::Status status = CheckBounds(flag, absl::ToDoubleSeconds(parsed), true);
  if (status.ok()) *value = parsed;
  return status;
}

// `origin` is "--" for the command line, or the file or variable that the value comes from.
absl::Status Set(const ServerFlag& flag, absl::string_view origin, const std::string& text,
                 Options* options) {
  const absl::Status status =
      std::visit([&](auto field) { return Assign(flag, text, &(options->*field)); }, flag.field);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(
      absl::StrCat(origin, flag.name, " is '", text, "', ", status.message()));
}

template <typename Value>
std::string Unparse(const Value& value) {
  return absl::UnparseFlag(value);
}
std::string Unparse(absl::Duration value) { return absl::AbslUnparseFlag(value); }

std::optional<double> Number(const std::string&) { return std::nullopt; }
std::optional<double> Number(bool) { return std::nullopt; }
std::optional<double> Number(int32_t value) { return value; }
std::optional<double> Number(int64_t value) { return static_cast<double>(value); }
std::optional<double> Number(absl::Duration value) { return absl::ToDoubleSeconds(value); }

std::string ValueText(const ServerFlag& flag, const Options& options) {
  return std::visit([&](auto field) { return Unparse(options.*field); }, flag.field);
}

std::string EnvironmentName(const ServerFlag& flag) {
  return absl::StrCat("SLUICE_", absl::AsciiStrToUpper(flag.name));
}

class Parser {
 public:
  explicit Parser(CommandLine* out) : out_(*out) {}

  // `origin` ends up before the flag's name in messages: "--", or "FILE: --".
  absl::Status Parse(absl::Span<const std::string> args, absl::string_view origin, int depth) {
    for (size_t i = 0; i < args.size(); ++i) {
      absl::string_view arg = args[i];
      if (!absl::ConsumePrefix(&arg, "--") && !absl::ConsumePrefix(&arg, "-")) {
        return absl::InvalidArgumentError(
            absl::StrCat("'", args[i], "' is not a flag; see --help"));
      }
      std::optional<std::string> value;
      const size_t equals = arg.find('=');
      if (equals != absl::string_view::npos) {
        value = std::string(arg.substr(equals + 1));
        arg = arg.substr(0, equals);
      }
      if (TakeAction(arg, value)) continue;
      if (arg == "flagfile") {
        if (!value.has_value() && i + 1 < args.size()) value = args[++i];
        absl::Status status = ParseFile(value.value_or(""), depth + 1);
        if (!status.ok()) return status;
        continue;
      }
      const ServerFlag* flag = FindFlag(arg);
      if (flag == nullptr && !value.has_value() && absl::ConsumePrefix(&arg, "no")) {
        flag = FindFlag(arg);
        if (flag != nullptr && !IsBool(*flag)) flag = nullptr;
        value = "false";
      }
      if (flag == nullptr) {
        return absl::InvalidArgumentError(absl::StrCat("unknown flag '", args[i], "'; see --help"));
      }
      if (!value.has_value() && IsBool(*flag)) value = "true";
      if (!value.has_value() && i + 1 < args.size()) value = args[++i];
      if (!value.has_value()) {
        return absl::InvalidArgumentError(absl::StrCat(origin, flag->name, " needs a value"));
      }
      absl::Status status = Set(*flag, origin, *value, &out_.options);
      if (!status.ok()) return status;
    }
    return absl::OkStatus();
  }

 private:
  static bool IsBool(const ServerFlag& flag) {
    return std::holds_alternative<bool Options::*>(flag.field);
  }

  bool TakeAction(absl::string_view name, const std::optional<std::string>& value) {
    if (name == "help") {
      out_.action = value == "markdown"  ? CommandLineAction::kHelpMarkdown
                    : value == "metrics" ? CommandLineAction::kHelpMetrics
                                         : CommandLineAction::kHelp;
    } else if (name == "version") {
      out_.action = CommandLineAction::kVersion;
    } else {
      return false;
    }
    return true;
  }

  // One flag a line, as on the command line; empty lines and lines that begin with # mean nothing.
  absl::Status ParseFile(const std::string& path, int depth) {
    if (depth > kMaxFlagfileDepth) {
      return absl::InvalidArgumentError(absl::StrCat("--flagfile ", path, " is nested too deep"));
    }
    std::ifstream file(path);
    if (!file) {
      return absl::InvalidArgumentError(
          absl::StrCat("--flagfile '", path, "': ", std::strerror(errno)));
    }
    std::vector<std::string> args;
    for (std::string line; std::getline(file, line);) {
      const absl::string_view stripped = absl::StripAsciiWhitespace(line);
      if (!stripped.empty() && stripped[0] != '#') args.emplace_back(stripped);
    }
    return Parse(args, absl::StrCat(path, ": --"), depth);
  }

  CommandLine& out_;
};

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(
    absl::Span<const std::string> args, const std::function<const char*(const char*)>& getenv) {
  CommandLine out;
  for (const ServerFlag& flag : ServerFlags()) {
    const char* value = getenv(EnvironmentName(flag).c_str());
    if (value == nullptr) continue;
    absl::Status status =
        Set(flag, absl::StrCat("environment ", EnvironmentName(flag), ": "), value, &out.options);
    if (!status.ok()) return status;
  }
  absl::Status status = Parser(&out).Parse(args, "--", 0);
  if (!status.ok()) return status;
  if (out.action == CommandLineAction::kServe && out.options.model.empty()) {
    return absl::InvalidArgumentError("--model=DIR is required; see --help");
  }
  return out;
}

std::string HelpText() {
  std::string out =
      "sluiced serves a language model with linear attention over gRPC and HTTP.\n\n"
      "  sluiced --model=DIR [--listen=HOST:PORT] ...\n\n"
      "Each flag can also be given as SLUICE_<FLAG> in the environment, or as a line of "
      "--flagfile=FILE; the\n"
      "command line wins.\n\nExit codes:\n";
  for (const ExitCode& exit : kExitCodes) {
    absl::StrAppend(&out, "  ", absl::StrFormat("%-3d", exit.code), " ", exit.meaning, "\n");
  }
  const Options defaults;
  absl::string_view group;
  for (const ServerFlag& flag : ServerFlags()) {
    if (group != flag.group) absl::StrAppend(&out, "\n", group = flag.group, ":\n");
    const std::string value = ValueText(flag, defaults);
    absl::StrAppend(&out, "  --", flag.name, "=", flag.metavar);
    if (!value.empty()) absl::StrAppend(&out, "  (default: ", value, ")");
    absl::StrAppend(&out, "\n      ", flag.help, "\n");
  }
  absl::StrAppend(
      &out, "\nAlso:\n  --flagfile=FILE, --version, --help, --help=markdown, --help=metrics\n");
  return out;
}

std::string HelpMarkdown() {
  std::string out = "| flag | default | meaning |\n|---|---|---|\n";
  const Options defaults;
  absl::string_view group;
  for (const ServerFlag& flag : ServerFlags()) {
    if (group != flag.group) absl::StrAppend(&out, "| **", group = flag.group, "** | | |\n");
    const std::string value = ValueText(flag, defaults);
    absl::StrAppend(&out, "| `--", flag.name, "=",
                    absl::StrReplaceAll(flag.metavar, {{"|", "\\|"}}), "` | ",
                    value.empty() ? "" : absl::StrCat("`", value, "`"), " | ", flag.help, " |\n");
  }
  return out;
}

std::string Version() { return SLUICE_VERSION; }

std::vector<FlagValue> FlagValues(const ServerOptions& options) {
  std::vector<FlagValue> out;
  for (const ServerFlag& flag : ServerFlags()) {
    const auto number = [&](auto field) { return Number(options.*field); };
    out.push_back({flag.name, ValueText(flag, options), std::visit(number, flag.field)});
  }
  return out;
}

}  // namespace sluice
