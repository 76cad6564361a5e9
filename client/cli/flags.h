// Command-line flags of one command: a table that parses and prints its own help.
#ifndef SLUICE_CLIENT_CLI_FLAGS_H_
#define SLUICE_CLIENT_CLI_FLAGS_H_

#include <cstdint>
#include <functional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "absl/types/span.h"
#include "server/flags/manual.h"

namespace sluice {

// Takes a flag's text. An error's message completes "--name=text: ".
using FlagSetter = std::function<absl::Status(absl::string_view text)>;

struct Flag {
  std::string name;  // with dashes: "max-new-tokens"; underscores mean the same on the command line
  std::string value;  // what stands for its value in the help; empty: a boolean, --name or --noname
  std::string help;
  FlagSetter set;
  std::string alias = "";  // another name for it, with dashes; the help does not list it
};

class FlagSet {
 public:
  // A heading in the help, for the flags added after it.
  void Section(absl::string_view title);
  void Add(Flag flag);

  enum class Arguments : uint8_t {
    kAnywhere,  // flags and other arguments mix
    kLast,      // everything after the first other argument is another argument
  };
  // Sets flags, and returns the other arguments. --name=value and --name value; "--" ends the
  // flags, "-" is none, "-h" is --help. One line of error for an unknown flag, with the name that
  // was probably meant, or a bad value.
  absl::StatusOr<std::vector<std::string>> Parse(absl::Span<const std::string> args,
                                                 Arguments order = Arguments::kAnywhere) const;

  // Sets the flag from the environment's SLUICE_<NAME>, when that is there.
  absl::Status ParseEnvironment(absl::string_view name,
                                const std::function<const char*(const char*)>& environment) const;

  // The flags, one to a line or more, 100 columns.
  std::string Help() const;
  // The same for the man page and for completion.
  std::vector<FlagManual> Manual() const;

 private:
  const Flag* Find(absl::string_view name) const;
  std::vector<std::string> Names() const;
  // Sets the flag at args[*i], and moves *i to the last argument it took.
  absl::Status ParseFlag(absl::Span<const std::string> args, size_t* i) const;

  std::vector<Flag> flags_;  // a heading has no setter
};

// Setters for the types that flags have.
FlagSetter ToString(std::function<void(std::string)> store);
FlagSetter ToBool(std::function<void(bool)> store);
FlagSetter ToFloat(std::function<void(float)> store);
FlagSetter ToDouble(std::function<void(double)> store);
FlagSetter ToInt32(std::function<void(int32_t)> store);
FlagSetter ToInt64(std::function<void(int64_t)> store);
FlagSetter ToUint64(std::function<void(uint64_t)> store);
FlagSetter ToSize(std::function<void(int64_t)> store);             // bytes: "4096", "2G"
FlagSetter ToDuration(std::function<void(absl::Duration)> store);  // "250ms", "1m30s"; above zero
FlagSetter ToTokenIds(std::function<void(int32_t)> append);        // "1,2,3", one call for each

// "1,2,3" or "1 2 3", with line breaks too. An error names the word that is no token id.
absl::Status ParseTokenIds(absl::string_view text, const std::function<void(int32_t)>& append);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_FLAGS_H_
