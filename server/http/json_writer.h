// JSON as the door writes it: appended to a string, piece by piece.
#ifndef SLUICE_SERVER_HTTP_JSON_WRITER_H_
#define SLUICE_SERVER_HTTP_JSON_WRITER_H_

#include <string>

#include "absl/strings/string_view.h"

namespace sluice {

// `text` in quotes. What is not UTF-8 in it becomes U+FFFD; U+0085, U+2028 and U+2029 are escaped.
void AppendJsonString(absl::string_view text, std::string* out);

// Appends the shortest decimal that reads back as `value`. JSON has no infinities and no NaN; they
// become -9999, which OpenAI's API gives where there is no logarithm.
void AppendJsonFloat(float value, std::string* out);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_JSON_WRITER_H_
