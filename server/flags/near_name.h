// Finds the name that a misspelt flag, command or variable was meant to be.
#ifndef SLUICE_SERVER_FLAGS_NEAR_NAME_H_
#define SLUICE_SERVER_FLAGS_NEAR_NAME_H_

#include <string>
#include <vector>

#include "absl/strings/string_view.h"

namespace sluice {

// The edits that turn `a` into `b`: a character inserted, removed or replaced, or two neighbours
// swapped (optimal string alignment).
int EditDistance(absl::string_view a, absl::string_view b);

// The name that is nearest to `text`; empty if none is near. A name of five characters or more is
// near within two edits, a shorter one within one.
std::string NearName(absl::string_view text, const std::vector<std::string>& names);

// "; did you mean PREFIXNAME?", or nothing if no name is near.
std::string DidYouMean(absl::string_view text, const std::vector<std::string>& names,
                       absl::string_view prefix);

}  // namespace sluice

#endif  // SLUICE_SERVER_FLAGS_NEAR_NAME_H_
