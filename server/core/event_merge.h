// Several events of one stream made into fewer.
#ifndef SLUICE_SERVER_CORE_EVENT_MERGE_H_
#define SLUICE_SERVER_CORE_EVENT_MERGE_H_

#include <cstdint>
#include <vector>

#include "engine/token_sink.h"

namespace sluice {

// A merged delta is not grown beyond this, in bytes of text, ids and log-probabilities.
inline constexpr int64_t kMergedDeltaBytes = 64 << 10;

// Memory an event holds, its own size included; the strings' slack is not counted. O(1).
int64_t EventBytes(const TokenEvent& event);

// Appends each delta to the one of the same sequence before it when only deltas of other sequences
// lie between. The order within each sequence, and of all other events, stays.
void MergeDeltas(std::vector<TokenEvent>* events);

}  // namespace sluice

#endif  // SLUICE_SERVER_CORE_EVENT_MERGE_H_
