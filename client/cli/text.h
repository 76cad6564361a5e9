// Small helpers for text that people read.
#ifndef SLUICE_CLIENT_CLI_TEXT_H_
#define SLUICE_CLIENT_CLI_TEXT_H_

#include <cstddef>
#include <cstdint>
#include <string>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "google/protobuf/message.h"

namespace sluice {

// Bytes of the longest prefix that is UTF-8 (shortest forms, no surrogates): text.size() when all
// of it is.
size_t ValidUtf8Prefix(absl::string_view text);

// Makes a model's text safe for a terminal: control characters other than tab and newline, which
// could move the cursor or retitle the window, become U+FFFD. `text` is UTF-8.
std::string ForTerminal(absl::string_view text);

// A vocabulary piece on one line of a table: control characters as C escapes.
std::string EscapeControls(absl::string_view text);

// "1,234,567".
std::string WithCommas(int64_t number);

// Milliseconds with three significant digits or no fraction: "0.83 ms", "12.4 ms", "1,250 ms".
std::string FormatMilliseconds(absl::Duration duration);

// One line of JSON with the proto's field names; fields at their default are there too.
std::string ToJson(const google::protobuf::Message& message);

}  // namespace sluice

#endif  // SLUICE_CLIENT_CLI_TEXT_H_
