// The header before a state's numbers in a file and in exported bytes.
//
//   u32 n, fingerprint    of the model
//   u32 n, numerics_id    of the backend that computed the numbers
//   i64 position          tokens in the history; 0: no numbers follow
//   i32 last_token        -1 at position 0
//   u32 n, undecoded      at most 3 bytes
//   u32 parts             0 at position 0
//   each part: i32 layer, u8 kind (StatePartKind), u8 dtype, u8 dims, dims x i64
//              dtypes: 1 fp32, 2 fp16, 3 bf16
//              a part that grows has the tokens that it holds as the first of its dims
//
// The numbers follow one part after another. All integers are little-endian.
//
// Version 1 of the formats knows fp32 alone, and of parts the matrix and the tails of convolutions:
// it is written for every state that it can say, so that daemons of two releases can share a
// directory. Version 2 is written for all others. Both are read.
#ifndef SLUICE_ENGINE_STATE_STATE_HEADER_H_
#define SLUICE_ENGINE_STATE_STATE_HEADER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/state/bytes.h"
#include "engine/state/state_info.h"
#include "kernels/state_table.h"

namespace sluice {

// The properties that a state must have to belong to the loaded model.
struct StateSpec {
  std::string fingerprint;
  StateTable table;
  // The most tokens that a history may have, for states that grow; 0: any.
  int64_t max_tokens = 0;
};

// The newest that is read.
inline constexpr uint32_t kStateVersion = 2;
// The version that a state with these parts is written as.
uint32_t StateVersion(const StateTable& table);

struct StateHeader {
  std::string fingerprint;
  StateInfo info;
  std::vector<StatePart> parts;  // without offsets
  // Bytes of numbers that follow.
  int64_t data_bytes(const StateSpec& spec) const {
    return info.position == 0 ? 0 : spec.table.BytesAt(info.seen());
  }
};

void PutStateHeader(const StateInfo& info, const StateSpec& spec, ByteWriter* out);
// DATA_LOSS: no such header of format `version` begins here.
absl::StatusOr<StateHeader> GetStateHeader(uint32_t version, ByteReader* in);
// FAILED_PRECONDITION: of another model. INVALID_ARGUMENT: its parts are not this model's.
// OUT_OF_RANGE: its history is longer than one may be here.
absl::Status CheckStateHeader(const StateHeader& header, const StateSpec& spec);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_HEADER_H_
