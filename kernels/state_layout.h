// The canonical form of one sequence's state: what a backend reads and writes, whatever its own
// layout is.
#ifndef SLUICE_KERNELS_STATE_LAYOUT_H_
#define SLUICE_KERNELS_STATE_LAYOUT_H_

#include <cstdint>
#include <vector>

#include "kernels/ops.h"

namespace sluice {

enum class StatePartKind : uint8_t {
  kMatrix = 1,  // S: (kv_heads, dk, dv)
  kConvQ = 2,  // the last conv_size - 1 inputs of the short convolution, oldest first: (conv_size -
               // 1, channels)
  kConvK = 3,
  kConvV = 4,
};

// One named part; fp32 throughout.
struct StatePart {
  int32_t layer = 0;
  StatePartKind kind = StatePartKind::kMatrix;
  std::vector<int64_t> shape;
  int64_t offset = 0;  // in floats, from the beginning of the state
  int64_t elements = 0;
};

struct StateLayout {
  std::vector<StatePart> parts;  // ordered by layer, then kind
  int64_t elements = 0;
  int64_t bytes() const { return elements * 4; }
};

StateLayout MakeStateLayout(const ModelShape& shape);

}  // namespace sluice

#endif  // SLUICE_KERNELS_STATE_LAYOUT_H_
