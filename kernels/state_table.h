// What one sequence's state consists of: named parts, each with a dtype and a shape. The canonical
// form of a state is its parts one after another: what backends read and write, whatever their own
// layout is, and what files and exports hold.
//
// Most parts have one size for ever. Keys and values of full attention grow: such a part has a row
// for each token that the state has seen, and so a state's bytes depend on how many these are.
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
  // Core::kSoftmax, a row for each token: keys (k_heads * dk) as they are compared with queries,
  // that is normed and turned; values (v_heads * dv). With a window that of position p is row
  // p % window, and rows of tokens that were never seen are zeros.
  kKeys = 7,
  kValues = 8,
};

struct StatePart {
  int32_t layer = 0;
  StatePartKind kind = StatePartKind::kMatrix;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // of one token's, where the part is per_token
  bool per_token = false;
  int64_t offset = 0;        // in bytes, from the beginning of a state that has seen no token
  int64_t token_offset = 0;  // what is added to it for each token that the state has seen
  int64_t elements = 0;      // of shape

  int64_t bytes() const { return elements * DTypeBytes(dtype); }  // of a token's, where per_token
  // Bytes of the canonical form of a state that has seen `tokens`.
  int64_t OffsetAt(int64_t tokens) const { return offset + token_offset * tokens; }
  int64_t BytesAt(int64_t tokens) const { return per_token ? bytes() * tokens : bytes(); }
};

// Backends keep what states hold for each token in pages of so many tokens. A full page never
// changes, so states share those that they have in common.
inline constexpr int64_t kPageTokens = 64;
// That a state which has seen `tokens` takes.
inline int64_t PagesFor(int64_t tokens) { return (tokens + kPageTokens - 1) / kPageTokens; }

// How much of it a backend has: for one state, and for all.
struct AttentionRoom {
  int64_t max_tokens = 0;
  int64_t pages = 0;
};

class StateTable {
 public:
  // Ordered by layer, then kind.
  const std::vector<StatePart>& parts() const { return parts_; }
  // Null: this layer has no such part.
  const StatePart* Find(int64_t layer, StatePartKind kind) const;
  // Bytes of a state, without the parts that grow.
  int64_t bytes() const { return bytes_; }
  // What a state grows by with each token; 0: it has one size for ever.
  int64_t token_bytes() const { return token_bytes_; }
  // Bytes of a state that has seen `tokens`.
  int64_t BytesAt(int64_t tokens) const;

  // Parts come in their order.
  void Add(int64_t layer, StatePartKind kind, std::vector<int64_t> shape,
           DType dtype = DType::kF32);
  // A part that has `shape` for each token.
  void AddPerToken(int64_t layer, StatePartKind kind, std::vector<int64_t> shape,
                   DType dtype = DType::kF32);

 private:
  StatePart& Append(int64_t layer, StatePartKind kind, std::vector<int64_t> shape, DType dtype);

  std::vector<StatePart> parts_;
  int64_t bytes_ = 0;
  int64_t token_bytes_ = 0;
};

// Sizes that do not fit 64 bits count as INT64_MAX.
StateTable MakeStateTable(const ModelSpec& spec);

}  // namespace sluice

#endif  // SLUICE_KERNELS_STATE_TABLE_H_
