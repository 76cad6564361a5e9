// The table of sluiced's flags: options.cc parses by it, and prints it.
#ifndef SLUICE_SERVER_FLAG_TABLE_H_
#define SLUICE_SERVER_FLAG_TABLE_H_

#include <cstdint>
#include <limits>
#include <string>
#include <variant>
#include <vector>

#include "absl/time/time.h"
#include "server/options.h"

namespace sluice {

using FlagField =
    std::variant<std::string ServerOptions::*, int32_t ServerOptions::*, int64_t ServerOptions::*,
                 bool ServerOptions::*, absl::Duration ServerOptions::*>;

inline constexpr double kNoBound = std::numeric_limits<double>::infinity();

struct ServerFlag {
  const char* name;
  const char* metavar;
  const char* group;
  const char* help;  // whole sentences, the same as beside the field in options.h
  FlagField field;
  double min = -kNoBound;  // for a number, or a duration in seconds
  double max = kNoBound;
  std::vector<const char*> choices = {};  // for a string; any if empty
};

// Every flag, in the order in which --help prints them.
const std::vector<ServerFlag>& ServerFlags();

}  // namespace sluice

#endif  // SLUICE_SERVER_FLAG_TABLE_H_
