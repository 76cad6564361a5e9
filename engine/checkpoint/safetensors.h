// The header of a safetensors file: which tensors it holds and where. A pure function over bytes.
//
// A file is: the header's length (8 bytes, little-endian), the header (JSON), the data. The header
// is an object of tensors
//   "NAME": {"dtype": "BF16", "shape": [4, 8], "data_offsets": [BEGIN, END]}
// and, if anything is to be noted, "__metadata__": {"KEY": "TEXT"}. Offsets count from the
// beginning of the data, which the tensors cover exactly: no hole, no overlap, no rest.
#ifndef SLUICE_ENGINE_CHECKPOINT_SAFETENSORS_H_
#define SLUICE_ENGINE_CHECKPOINT_SAFETENSORS_H_

#include <cstdint>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace sluice {

inline constexpr int64_t kSafetensorsPrefixBytes = 8;
inline constexpr int64_t kMaxSafetensorsHeaderBytes = 100'000'000;
inline constexpr int64_t kMaxSafetensorsTensors = 1'000'000;
inline constexpr int kMaxSafetensorsRank = 8;

struct TensorInfo {
  absl::string_view dtype;  // the format's name, such as "BF16"; static storage
  std::vector<int64_t> shape;
  int64_t begin = 0;  // in bytes, from the beginning of the file
  int64_t end = 0;
};

// "[4, 8]"
std::string ShapeText(const std::vector<int64_t>& shape);

// By name. A node at a time: no allocation grows with a number that the file states.
using TensorMap = std::map<std::string, TensorInfo, std::less<>>;

// Length of the header, from the file's first 8 bytes; `prefix` may be shorter when the file is.
// INVALID_ARGUMENT, beginning with `file_name`, when it is not in [2, 100 MB] or goes beyond
// `file_size`.
absl::StatusOr<int64_t> ParseSafetensorsPrefix(absl::string_view prefix, int64_t file_size,
                                               absl::string_view file_name);

// Reads the header that follows the prefix. INVALID_ARGUMENT names `file_name`, the tensor and the
// rule.
absl::StatusOr<TensorMap> ParseSafetensorsHeader(absl::string_view header, int64_t file_size,
                                                 absl::string_view file_name);

}  // namespace sluice

#endif  // SLUICE_ENGINE_CHECKPOINT_SAFETENSORS_H_
