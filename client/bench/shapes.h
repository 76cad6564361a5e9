// Files of request shapes: how long prompts and outputs are, or the prompts themselves.
//
// One request a line, of either form; empty lines and lines that begin with # are passed over:
//   {"prompt_tokens": 220, "output_tokens": 85}          a prompt of that many random tokens
//   {"prompt": "Once upon a time", "output_tokens": 40}  this text
//   220,85                                               as the first form
// Other members of an object are ignored. "prompt_tokens,output_tokens" may head a file of numbers.
#ifndef SLUICE_CLIENT_BENCH_SHAPES_H_
#define SLUICE_CLIENT_BENCH_SHAPES_H_

#include <cstdint>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

struct RequestShape {
  std::string prompt;         // empty: random tokens
  int64_t prompt_tokens = 0;  // of those
  int32_t new_tokens = 0;
};

// In the order of the file, at least one. INVALID_ARGUMENT is one line that begins with name:line.
absl::StatusOr<std::vector<RequestShape>> ParseShapes(absl::string_view text,
                                                      absl::string_view name);

// Reads and parses a file.
absl::StatusOr<std::vector<RequestShape>> ReadShapes(const std::string& file);

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_SHAPES_H_
