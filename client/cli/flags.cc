#include "client/cli/flags.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "server/flags/near_name.h"
#include "server/flags/size.h"

namespace sluice {
namespace {

constexpr size_t kHelpColumns = 100;
constexpr size_t kHelpIndent = 30;

bool IsBoolean(const Flag& flag) { return flag.value.empty(); }

absl::Status SetFlag(const Flag& flag, absl::string_view shown_name, absl::string_view text) {
  absl::Status status = flag.set(text);
  if (status.ok()) return status;
  return absl::InvalidArgumentError(absl::StrCat(shown_name, "=", text, ": ", status.message()));
}

// Breaks `text` at spaces; every line but the first is indented.
std::string Wrap(absl::string_view text) {
  std::string result;
  size_t column = kHelpIndent;
  for (absl::string_view word : absl::StrSplit(text, ' ')) {
    if (column > kHelpIndent && column + 1 + word.size() > kHelpColumns) {
      absl::StrAppend(&result, "\n", std::string(kHelpIndent, ' '));
      column = kHelpIndent;
    } else if (column > kHelpIndent) {
      result += ' ';
      ++column;
    }
    absl::StrAppend(&result, word);
    column += word.size();
  }
  return result;
}

template <typename Number, typename Parse>
FlagSetter NumberSetter(Parse parse, const char* kind, std::function<void(Number)> store) {
  return [parse, kind, store = std::move(store)](absl::string_view text) {
    Number value;
    if (!parse(text, &value)) return absl::InvalidArgumentError(absl::StrCat("must be ", kind));
    store(value);
    return absl::OkStatus();
  };
}

}  // namespace

void FlagSet::Section(absl::string_view title) {
  flags_.push_back({std::string(title), "", "", nullptr});
}

void FlagSet::Add(Flag flag) { flags_.push_back(std::move(flag)); }

const Flag* FlagSet::Find(absl::string_view name) const {
  const std::string with_dashes = absl::StrReplaceAll(name, {{"_", "-"}});
  for (const Flag& flag : flags_) {
    if (flag.set &&
        (flag.name == with_dashes || (!flag.alias.empty() && flag.alias == with_dashes)))
      return &flag;
  }
  return nullptr;
}

std::vector<std::string> FlagSet::Names() const {
  std::vector<std::string> names;
  for (const Flag& flag : flags_) {
    if (flag.set) names.push_back(flag.name);
  }
  return names;
}

absl::StatusOr<std::vector<std::string>> FlagSet::Parse(absl::Span<const std::string> args,
                                                        Arguments order) const {
  std::vector<std::string> rest;
  for (size_t i = 0; i < args.size(); ++i) {
    const bool is_flag = args[i].size() >= 2 && args[i][0] == '-';
    if (args[i] == "--" || (!is_flag && order == Arguments::kLast)) {
      rest.insert(rest.end(), args.begin() + i + (is_flag ? 1 : 0), args.end());
      break;
    }
    if (!is_flag) {
      rest.push_back(args[i]);
      continue;
    }
    const absl::Status status = ParseFlag(args, &i);
    if (!status.ok()) return status;
  }
  return rest;
}

absl::Status FlagSet::ParseFlag(absl::Span<const std::string> args, size_t* i) const {
  const std::string& arg = args[*i];
  const size_t equals = arg.find('=');
  const absl::string_view shown_name = absl::string_view(arg).substr(0, equals);
  const absl::string_view name =
      arg == "-h" ? "help" : absl::StripPrefix(absl::StripPrefix(shown_name, "-"), "-");
  if (const Flag* flag = Find(name)) {
    if (equals != std::string::npos) {
      return SetFlag(*flag, shown_name, absl::string_view(arg).substr(equals + 1));
    }
    if (IsBoolean(*flag)) return SetFlag(*flag, shown_name, "true");
    if (*i + 1 == args.size()) {
      return absl::InvalidArgumentError(absl::StrCat(shown_name, " needs a value"));
    }
    return SetFlag(*flag, shown_name, args[++*i]);
  }
  const Flag* negated = absl::StartsWith(name, "no") ? Find(name.substr(2)) : nullptr;
  if (negated == nullptr || !IsBoolean(*negated) || equals != std::string::npos) {
    return absl::InvalidArgumentError(
        absl::StrCat("unknown flag ", shown_name,
                     DidYouMean(absl::StrReplaceAll(name, {{"_", "-"}}), Names(), "--")));
  }
  return SetFlag(*negated, shown_name, "false");
}

absl::Status FlagSet::ParseEnvironment(
    absl::string_view name, const std::function<const char*(const char*)>& environment) const {
  const std::string variable =
      absl::StrCat("SLUICE_", absl::AsciiStrToUpper(absl::StrReplaceAll(name, {{"-", "_"}})));
  const char* text = environment ? environment(variable.c_str()) : nullptr;
  if (text == nullptr) return absl::OkStatus();
  return SetFlag(*Find(name), variable, text);
}

std::string FlagSet::Help() const {
  std::string help;
  for (const Flag& flag : flags_) {
    if (!flag.set) {
      absl::StrAppend(&help, "\n", flag.name, ":\n");
      continue;
    }
    std::string left = absl::StrCat("  --", flag.name, IsBoolean(flag) ? "" : "=", flag.value);
    if (left.size() + 2 > kHelpIndent) {
      absl::StrAppend(&left, "\n", std::string(kHelpIndent, ' '));
    } else {
      left.resize(kHelpIndent, ' ');
    }
    absl::StrAppend(&help, left, Wrap(flag.help), "\n");
  }
  return help;
}

std::vector<FlagManual> FlagSet::Manual() const {
  std::vector<FlagManual> manual;
  std::string section;
  for (const Flag& flag : flags_) {
    if (!flag.set) {
      section = flag.name;
      continue;
    }
    FlagManual entry = {section, flag.name, flag.value, flag.help};
    entry.completes = CompletionOf(flag.value, &entry.words);
    manual.push_back(std::move(entry));
  }
  return manual;
}

FlagSetter ToString(std::function<void(std::string)> store) {
  return [store = std::move(store)](absl::string_view text) {
    store(std::string(text));
    return absl::OkStatus();
  };
}

FlagSetter ToBool(std::function<void(bool)> store) {
  return NumberSetter<bool>(
      [](absl::string_view text, bool* value) { return absl::SimpleAtob(text, value); },
      "true or false", std::move(store));
}

FlagSetter ToFloat(std::function<void(float)> store) {
  return NumberSetter<float>(
      [](absl::string_view text, float* value) {
        return absl::SimpleAtof(text, value) && std::isfinite(*value);
      },
      "a number", std::move(store));
}

FlagSetter ToDouble(std::function<void(double)> store) {
  return NumberSetter<double>(
      [](absl::string_view text, double* value) {
        return absl::SimpleAtod(text, value) && std::isfinite(*value);
      },
      "a number", std::move(store));
}

FlagSetter ToInt32(std::function<void(int32_t)> store) {
  return NumberSetter<int32_t>(
      [](absl::string_view text, int32_t* value) { return absl::SimpleAtoi(text, value); },
      "a whole number", std::move(store));
}

FlagSetter ToInt64(std::function<void(int64_t)> store) {
  return NumberSetter<int64_t>(
      [](absl::string_view text, int64_t* value) { return absl::SimpleAtoi(text, value); },
      "a whole number", std::move(store));
}

FlagSetter ToSize(std::function<void(int64_t)> store) {
  return NumberSetter<int64_t>(
      [](absl::string_view text, int64_t* value) {
        const absl::optional<int64_t> bytes = ParseSize(text);
        if (bytes) *value = *bytes;
        return bytes.has_value();
      },
      "a number of bytes, such as 4096 or 2G", std::move(store));
}

FlagSetter ToUint64(std::function<void(uint64_t)> store) {
  return NumberSetter<uint64_t>(
      [](absl::string_view text, uint64_t* value) { return absl::SimpleAtoi(text, value); },
      "a whole number that is not negative", std::move(store));
}

FlagSetter ToDuration(std::function<void(absl::Duration)> store) {
  return NumberSetter<absl::Duration>(
      [](absl::string_view text, absl::Duration* value) {
        return absl::ParseDuration(text, value) && *value > absl::ZeroDuration();
      },
      "a duration above zero, such as 250ms or 1m30s", std::move(store));
}

absl::Status ParseTokenIds(absl::string_view text, const std::function<void(int32_t)>& append) {
  for (absl::string_view word :
       absl::StrSplit(text, absl::ByAnyChar(", \t\r\n"), absl::SkipEmpty())) {
    int32_t id;
    if (!absl::SimpleAtoi(word, &id)) {
      return absl::InvalidArgumentError(
          absl::StrCat("'", word.substr(0, 40), "' is not a token id"));
    }
    append(id);
  }
  return absl::OkStatus();
}

FlagSetter ToTokenIds(std::function<void(int32_t)> append) {
  return
      [append = std::move(append)](absl::string_view text) { return ParseTokenIds(text, append); };
}

}  // namespace sluice
