// What one sequence's state consists of: named parts, each with a dtype and a shape. The canonical
// form of a state is its parts one after another: what backends read and write, whatever their own
// layout is, and what files and exports hold.
#ifndef SLUICE_KERNELS_STATE_TABLE_H_
#define SLUICE_KERNELS_STATE_TABLE_H_

#include <cstdint>
#include <vector>

#include "kernels/model_spec.h"

namespace sluice {

// The numbers are part of file formats.
enum class StatePartKind : uint8_t {
  kMatrix = 1,  // S: (state_heads, dk, dv)
  kConvQ = 2,   // the last taps - 1 inputs of the convolution, oldest first: (taps - 1, columns)
  kConvK = 3,   //
  kConvV = 4,   //
  kNormaliser = 5,  // z, the sum of decayed keys: (state_heads, dk)
  kLogSum = 6,      // GateMap::kLightNet's z: (state_heads, dk)
};

struct StatePart {
  int32_t layer = 0;
  StatePartKind kind = StatePartKind::kMatrix;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  int64_t offset = 0;    // in bytes, from the beginning of the state
  int64_t elements = 0;  // of shape

  int64_t bytes() const { return elements * DTypeBytes(dtype); }
};

class StateTable {
 public:
  // Ordered by layer, then kind.
  const std::vector<StatePart>& parts() const { return parts_; }
  // Null: this layer has no such part.
  const StatePart* Find(int64_t layer, StatePartKind kind) const;
  // Of a state.
  int64_t bytes() const { return bytes_; }

  // Parts come in their order.
  void Add(int64_t layer, StatePartKind kind, std::vector<int64_t> shape,
           DType dtype = DType::kF32);

 private:
  std::vector<StatePart> parts_;
  int64_t bytes_ = 0;
};

// Sizes that do not fit 64 bits count as INT64_MAX.
StateTable MakeStateTable(const ModelSpec& spec);

}  // namespace sluice

#endif  // SLUICE_KERNELS_STATE_TABLE_H_
