#include "server/options.h"

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <limits>
#include <optional>
#include <system_error>
#include <utility>
#include <variant>

#include "absl/flags/marshalling.h"
#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "absl/types/optional.h"
#include "server/flag_table.h"
#include "server/flags/near_name.h"
#include "server/flags/size.h"

#ifndef SLUICE_VERSION
#error "SLUICE_VERSION comes from CMake"
#endif

namespace sluice {
namespace {

using Options = ServerOptions;

constexpr int kMaxFlagfileDepth = 4;
constexpr absl::string_view kBytes = "BYTES";  // stands for a size in the table
constexpr absl::string_view kPrefix = "SLUICE_";
// The command line client reads these.
constexpr absl::string_view kClientVariables[] = {"ADDRESS",     "TIMEOUT", "TOKEN",
                                                  "TRACEPARENT", "TLS",     "TLS_CA"};

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
bool ParseBytes(const std::string& text, Number* value) {
  const absl::optional<int64_t> bytes = ParseSize(text);
  if (!bytes.has_value() || *bytes > std::numeric_limits<Number>::max()) return false;
  *value = static_cast<Number>(*bytes);
  return true;
}

template <typename Number>
absl::Status Assign(const ServerFlag& flag, const std::string& text, Number* value) {
  std::string error;
  Number parsed{};
  const bool bytes = flag.metavar == kBytes;
  if (!absl::ParseFlag(text, &parsed, &error) && !(bytes && ParseBytes(text, &parsed))) {
    return absl::InvalidArgumentError(absl::StrCat("is not a whole number",
                                                   bytes ? " of bytes, such as 4096 or 2G," : "",
                                                   " up to ", std::numeric_limits<Number>::max()));
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

absl::Status Assign(const ServerFlag& flag, const std::string& text, Options* options) {
  absl::Status status =
      std::visit([&](auto field) { return Assign(flag, text, &(options->*field)); }, flag.field);
  if (status.ok()) options->given.emplace_back(flag.name);
  return status;
}

// `origin` is "--" for the command line, or "FILE: --" for a flag that a file gives.
absl::Status Set(const ServerFlag& flag, absl::string_view origin, const std::string& text,
                 Options* options) {
  const absl::Status status = Assign(flag, text, options);
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

std::vector<std::string> FlagNames() {
  std::vector<std::string> names;
  for (const ServerFlag& flag : ServerFlags()) names.emplace_back(flag.name);
  return names;
}

// Kubernetes gives each container such variables for a service that is named sluice:
// SLUICE_SERVICE_HOST, SLUICE_PORT_50051_TCP, SLUICE_ADMIN_PORT, ...
bool IsOfKubernetes(absl::string_view name) {
  const std::string padded = absl::StrCat("_", name);
  return absl::StrContains(padded, "_PORT") || absl::StrContains(padded, "_SERVICE_");
}

bool IsOfClient(absl::string_view name) {
  return std::find(std::begin(kClientVariables), std::end(kClientVariables), name) !=
         std::end(kClientVariables);
}

// Sets one flag by the variable SLUICE_`name`, if that is the daemon's.
absl::Status SetByVariable(absl::string_view name, const std::string& text, CommandLine* out) {
  const std::string variable = absl::StrCat("environment ", kPrefix, name);
  for (const ServerFlag& flag : ServerFlags()) {
    if (absl::AsciiStrToUpper(flag.name) != name) continue;
    const absl::Status status = Assign(flag, text, &out->options);
    if (status.ok()) return status;
    return absl::InvalidArgumentError(
        absl::StrCat(variable, " is '", text, "', ", status.message()));
  }
  if (IsOfClient(name) || IsOfKubernetes(name)) return absl::OkStatus();
  const std::string meant = NearName(absl::AsciiStrToLower(name), FlagNames());
  if (!meant.empty()) {
    return absl::InvalidArgumentError(absl::StrCat(variable,
                                                   ": no flag has this name; did you mean ",
                                                   kPrefix, absl::AsciiStrToUpper(meant), "?"));
  }
  out->warnings.push_back(absl::StrCat(variable, " is ignored: no flag has this name"));
  return absl::OkStatus();
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
      const std::string name(arg);
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
        return absl::InvalidArgumentError(
            absl::StrCat(origin == "--" ? "" : absl::StripSuffix(origin, "--"), "unknown flag '",
                         args[i], "'", DidYouMean(name, FlagNames(), "--"), "; see --help"));
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

  // After the last flag.
  absl::Status Finish() const {
    if (verbose_ && out_.action != CommandLineAction::kVersion) {
      return absl::InvalidArgumentError("--verbose goes with --version; see --help");
    }
    if (verbose_) out_.action = CommandLineAction::kVersionVerbose;
    return absl::OkStatus();
  }

 private:
  static bool IsBool(const ServerFlag& flag) {
    return std::holds_alternative<bool Options::*>(flag.field);
  }

  bool TakeAction(absl::string_view name, const std::optional<std::string>& value) {
    using Action = CommandLineAction;
    if (name == "help" || name == "h") {
      out_.action = value == "markdown"  ? Action::kHelpMarkdown
                    : value == "metrics" ? Action::kHelpMetrics
                    : value == "man"     ? Action::kHelpMan
                    : value == "bash"    ? Action::kHelpBash
                    : value == "zsh"     ? Action::kHelpZsh
                                         : Action::kHelp;
    } else if (name == "version") {
      out_.action = Action::kVersion;
    } else if (name == "verbose") {
      verbose_ = true;
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
    const auto error = [&](int code) {
      return absl::InvalidArgumentError(
          absl::StrCat("--flagfile '", path, "': ", std::strerror(code)));
    };
    // A directory can be opened, and has no lines.
    std::error_code ignored;
    if (std::filesystem::is_directory(path, ignored)) return error(EISDIR);
    std::ifstream file(path);
    if (!file) return error(errno);
    std::vector<std::string> args;
    for (std::string line; std::getline(file, line);) {
      const absl::string_view stripped = absl::StripAsciiWhitespace(line);
      if (!stripped.empty() && stripped[0] != '#') args.emplace_back(stripped);
    }
    return Parse(args, absl::StrCat(path, ": --"), depth);
  }

  CommandLine& out_;
  bool verbose_ = false;
};

}  // namespace

absl::StatusOr<CommandLine> ParseCommandLine(absl::Span<const std::string> args,
                                             absl::Span<const std::string> environment) {
  CommandLine out;
  for (const std::string& entry : environment) {
    const std::pair<absl::string_view, absl::string_view> parts =
        absl::StrSplit(entry, absl::MaxSplits('=', 1));
    absl::string_view name = parts.first;
    if (!absl::ConsumePrefix(&name, kPrefix)) continue;
    const absl::Status status = SetByVariable(name, std::string(parts.second), &out);
    if (!status.ok()) return status;
  }
  Parser parser(&out);
  absl::Status status = parser.Parse(args, "--", 0);
  if (status.ok()) status = parser.Finish();
  if (!status.ok()) return status;
  if (out.action == CommandLineAction::kServe && out.options.model.empty()) {
    return absl::InvalidArgumentError("--model=DIR is required; see --help");
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
