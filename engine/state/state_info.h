// A session's state's facts about itself, beside its numbers.
#ifndef SLUICE_ENGINE_STATE_STATE_INFO_H_
#define SLUICE_ENGINE_STATE_STATE_INFO_H_

#include <cstddef>
#include <cstdint>
#include <string>
#include <vector>

namespace sluice {

// A longer note is dropped.
inline constexpr size_t kMaxNoteBytes = 1000;

// A state stands for a history of tokens. Its numbers are the model's state after all of them but
// the last, so that a call without a prompt can go on from the last one.
struct StateInfo {
  int64_t position = 0;     // tokens in the history, the last one included; 0: there is no state
  int32_t last_token = -1;  // -1 at position 0
  std::string undecoded;    // at most 3 bytes: the beginning of a character
  std::string numerics_id;  // of the backend that computed the numbers
  std::string note{};       // what the call that committed it left for the next (Request::note)

  // Tokens that the numbers have seen.
  int64_t seen() const { return position > 0 ? position - 1 : 0; }
};

// The numbers in canonical form (kernels/state_table.h): the table's bytes for what they have seen.
using StateData = std::vector<char>;

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_STATE_INFO_H_
