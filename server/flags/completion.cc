#include <map>
#include <set>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "server/flags/manual.h"

namespace sluice {
namespace {

using Completes = FlagManual::Completes;

// "--json", or "--name=" where a value follows.
std::string Spelled(const FlagManual& flag) {
  return absl::StrCat("--", flag.name, flag.value.empty() ? "" : "=");
}

std::string SpelledAll(const std::vector<FlagManual>& flags) {
  return absl::StrJoin(flags, " ", [](std::string* out, const FlagManual& flag) {
    absl::StrAppend(out, Spelled(flag));
  });
}

// The first words of all commands, each once.
std::vector<std::string> FirstWords(const ProgramManual& program) {
  std::vector<std::string> words;
  for (const CommandManual& command : program.commands) {
    if (!absl::StrContains(command.name, ' ')) words.push_back(command.name);
  }
  return words;
}

// command -> its second words ("session" -> create, list, ...).
std::map<std::string, std::vector<std::string>> SecondWords(const ProgramManual& program) {
  std::map<std::string, std::vector<std::string>> words;
  for (const CommandManual& command : program.commands) {
    const std::pair<std::string, std::string> parts =
        absl::StrSplit(command.name, absl::MaxSplits(' ', 1));
    if (!parts.second.empty()) words[parts.first].push_back(parts.second);
  }
  return words;
}

// One case of bash's `case` for each flag whose values are known.
void AppendValueCases(const std::vector<FlagManual>& flags, std::set<std::string>* done,
                      std::string* out) {
  for (const FlagManual& flag : flags) {
    if (flag.completes == Completes::kNothing || !done->insert(flag.name).second) continue;
    const std::string reply =
        flag.completes == Completes::kFile ? "compgen -f"
        : flag.completes == Completes::kDirectory
            ? "compgen -d"
            : absl::StrCat("compgen -W '", absl::StrJoin(flag.words, " "), "'");
    absl::StrAppend(out, "    --", flag.name, ") COMPREPLY=($(", reply,
                    " -- \"$value\")); return ;;\n");
  }
}

std::string Quoted(absl::string_view text) {
  return absl::StrReplaceAll(text, {{"'", "'\\''"}, {"[", "("}, {"]", ")"}, {":", "\\:"}});
}

std::string ZshFlag(const FlagManual& flag) {
  std::string spec =
      absl::StrCat("'--", flag.name, flag.value.empty() ? "" : "=", "[", Quoted(flag.help), "]");
  if (!flag.value.empty()) {
    const std::string action = flag.completes == Completes::kFile        ? "_files"
                               : flag.completes == Completes::kDirectory ? "_files -/"
                               : flag.completes == Completes::kWords
                                   ? absl::StrCat("(", absl::StrJoin(flag.words, " "), ")")
                                   : "";
    absl::StrAppend(&spec, ":", Quoted(flag.value), ":", action);
  }
  return spec + "'";
}

std::string ZshArguments(const std::vector<FlagManual>& flags) {
  std::string out = "_arguments";
  for (const FlagManual& flag : flags) absl::StrAppend(&out, " \\\n      ", ZshFlag(flag));
  return out + " \\\n      '*:file:_files'";
}

}  // namespace

Completes CompletionOf(const std::string& value, std::vector<std::string>* words) {
  if (value.empty() || value == "FILE")
    return value.empty() ? Completes::kNothing : Completes::kFile;
  std::vector<std::string> parts = absl::StrSplit(value, '|');
  if (parts[0] == "DIR") return Completes::kDirectory;
  if (value == "BOOL") parts = {"true", "false"};
  if (parts.size() < 2) return Completes::kNothing;
  for (std::string& part : parts) part = part.substr(0, part.find('['));
  *words = std::move(parts);
  return Completes::kWords;
}

std::string BashCompletion(const ProgramManual& program) {
  const std::string function = absl::StrCat("_", program.name, "_completion");
  std::string out =
      absl::StrCat("# bash completion of ", program.name, ", made from its table of flags.\n",
                   function, "() {\n",
                   "  local word=${COMP_WORDS[COMP_CWORD]} flag=${COMP_WORDS[COMP_CWORD-1]} value "
                   "words command= second= i\n",
                   "  # bash splits --flag=value at the sign.\n"
                   "  value=$word\n"
                   "  if [ \"$word\" = = ]; then value=; elif [ \"$flag\" = = ]; then "
                   "flag=${COMP_WORDS[COMP_CWORD-2]}; fi\n"
                   "  case \"$flag\" in\n");
  std::set<std::string> done;
  AppendValueCases(program.flags, &done, &out);
  for (const CommandManual& command : program.commands)
    AppendValueCases(command.flags, &done, &out);
  absl::StrAppend(&out, "  esac\n");
  if (!program.commands.empty()) {
    absl::StrAppend(&out,
                    "  for ((i = 1; i < COMP_CWORD; i++)); do\n"
                    "    case \"${COMP_WORDS[i]}\" in\n"
                    "      -* | =) ;;\n"
                    "      *) if [ -z \"$command\" ]; then command=${COMP_WORDS[i]}; elif [ -z "
                    "\"$second\" ]; then second=${COMP_WORDS[i]}; fi ;;\n"
                    "    esac\n"
                    "  done\n");
  }
  absl::StrAppend(&out, "  case \"$command $second\" in\n");
  for (const CommandManual& command : program.commands) {
    // Commands with a second word come before the pattern that takes any.
    if (absl::StrContains(command.name, ' ')) {
      absl::StrAppend(&out, "    '", command.name, "') words='", SpelledAll(command.flags),
                      "' ;;\n");
    }
  }
  const auto second_words = SecondWords(program);
  for (const CommandManual& command : program.commands) {
    if (absl::StrContains(command.name, ' ')) continue;
    const auto second = second_words.find(command.name);
    absl::StrAppend(&out, "    '", command.name, " '*) words='",
                    second == second_words.end() ? "" : absl::StrJoin(second->second, " ") + " ",
                    SpelledAll(command.flags), "' ;;\n");
  }
  absl::StrAppend(&out, "    *) words='", absl::StrJoin(FirstWords(program), " "),
                  program.commands.empty() ? "" : " ", SpelledAll(program.flags), "' ;;\n  esac\n",
                  "  COMPREPLY=($(compgen -W \"$words\" -- \"$word\"))\n"
                  "  case \"${COMPREPLY[0]}\" in *=) compopt -o nospace ;; esac\n"
                  "  if [ ${#COMPREPLY[@]} = 0 ]; then compopt -o default; fi\n}\n",
                  "complete -F ", function, " ", program.name, "\n");
  return out;
}

std::string ZshCompletion(const ProgramManual& program) {
  std::string out = absl::StrCat("#compdef ", program.name, "\n# zsh completion of ", program.name,
                                 ", made from its table of flags.\n");
  if (program.commands.empty()) return absl::StrCat(out, ZshArguments(program.flags), "\n");
  absl::StrAppend(&out,
                  "local i command= second=\nfor ((i = 2; i < CURRENT; i++)); do\n  case $words[i] "
                  "in\n    -*) ;;\n"
                  "    *) if [[ -z $command ]]; then command=$words[i]; elif [[ -z $second ]]; "
                  "then second=$words[i]; fi ;;\n  esac\ndone\n"
                  "case \"$command $second\" in\n  ' ')\n    local -a commands=(\n");
  for (const CommandManual& command : program.commands) {
    if (!absl::StrContains(command.name, ' ')) {
      absl::StrAppend(&out, "      '", command.name, ":", Quoted(command.summary), "'\n");
    }
  }
  absl::StrAppend(&out, "    )\n    _describe command commands\n    ", ZshArguments(program.flags),
                  " ;;\n");
  for (const CommandManual& command : program.commands) {
    if (!absl::StrContains(command.name, ' ')) continue;
    absl::StrAppend(&out, "  '", command.name, "')\n    ", ZshArguments(command.flags), " ;;\n");
  }
  const auto second_words = SecondWords(program);
  for (const CommandManual& command : program.commands) {
    if (absl::StrContains(command.name, ' ')) continue;
    absl::StrAppend(&out, "  '", command.name, " '*)\n");
    if (const auto second = second_words.find(command.name); second != second_words.end()) {
      absl::StrAppend(&out, "    compadd ", absl::StrJoin(second->second, " "), "\n");
    }
    absl::StrAppend(&out, "    ", ZshArguments(command.flags), " ;;\n");
  }
  return out + "esac\n";
}

}  // namespace sluice
