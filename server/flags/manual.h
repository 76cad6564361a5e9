// A program's flags and commands, and the man page and completions that are made of them.
#ifndef SLUICE_SERVER_FLAGS_MANUAL_H_
#define SLUICE_SERVER_FLAGS_MANUAL_H_

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace sluice {

struct FlagManual {
  std::string section;  // the heading that the flag stands under
  std::string name;     // without dashes
  std::string value;    // what stands for its value; empty for a boolean
  std::string help;     // whole sentences
  // What may be completed: words, or the kind of path.
  enum class Completes : uint8_t {
    kNothing,
    kWords,
    kFile,
    kDirectory
  } completes = Completes::kNothing;
  std::vector<std::string> words = {};
};

struct CommandManual {
  std::string name;      // "generate", "session create"
  std::string summary;   // one line
  std::string usage;     // what follows the program's name and `name`
  std::string details;   // paragraphs
  std::string examples;  // lines, indented by two
  std::vector<FlagManual> flags;
};

struct ProgramManual {
  std::string name;         // "sluice"
  std::string version;      // "0.1.0"
  std::string summary;      // one line
  std::string usage;        // what follows the program's name
  std::string description;  // paragraphs
  std::vector<FlagManual> flags;
  std::vector<CommandManual> commands;
  std::vector<std::pair<int, std::string>> exit_codes;
};

// What completes a flag's value, guessed from the text that stands for it in the help: FILE, DIR,
// or words between bars.
FlagManual::Completes CompletionOf(const std::string& value, std::vector<std::string>* words);

std::string ManPage(const ProgramManual& program);  // troff, section 1
std::string BashCompletion(const ProgramManual& program);
std::string ZshCompletion(const ProgramManual& program);

}  // namespace sluice

#endif  // SLUICE_SERVER_FLAGS_MANUAL_H_
