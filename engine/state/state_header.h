// What stands before a state's numbers in a file and in exported bytes.
//
//   u32 n, fingerprint    of the model
//   u32 n, numerics_id    of the backend that computed the numbers
//   i64 position          tokens in the history; 0: no numbers follow
//   i32 last_token        -1 at position 0
//   u32 n, undecoded      at most 3 bytes
//   u32 parts             0 at position 0
//   each part: i32 layer, u8 kind (StatePartKind), u8 dtype (1: fp32), u8 dims, dims x i64
//
// The numbers follow one part after another. All integers are little-endian.
#ifndef SLUICE_ENGINE_STATE_STATE_HEADER_H_
#define SLUICE_ENGINE_STATE_STATE_HEADER_H_

#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "engine/state/bytes.h"
#include "engine/state/state_info.h"
#include "kernels/state_layout.h"

namespace sluice {

// What a state must be like to belong to the model that is loaded.
struct StateSpec {
  std::string fingerprint;
  StateLayout layout;
};

struct StateHeader {
  std::string fingerprint;
  StateInfo info;
  std::vector<StatePart> parts;  // without offsets
  // Bytes of numbers that follow.
  int64_t data_bytes(const StateSpec& spec) const {
    return info.position == 0 ? 0 : spec.layout.bytes();
  }
};

void PutStateHeader(const StateInfo& info, const StateSpec& spec, ByteWriter* out);
// DATA_LOSS: no such header begins here.
absl::StatusOr<StateHeader> GetStateHeader(ByteReader* in);
// FAILED_PRECONDITION: of another model. INVALID_ARGUMENT: its parts are not this model's.
absl::Status CheckStateHeader(const StateHeader& header, const StateSpec& spec);

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_HEADER_H_
