// A session as it is on disk.
#ifndef SLUICE_ENGINE_STATE_SESSION_RECORD_H_
#define SLUICE_ENGINE_STATE_SESSION_RECORD_H_

#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "engine/state/state_info.h"

namespace sluice {

struct SessionRecord {
  std::string tenant;
  std::string id;
  std::string affinity;
  uint64_t generation = 0;  // of the record: one more with each that is written, from 1
  // Random names of this record and of those before it, newest first: tells whether a record that
  // another daemon followed up on is the one that was written. The store's own.
  std::vector<uint64_t> lineage;
  std::string etag;
  StateInfo info;
  std::string fingerprint;  // of the model
  std::string state_id;     // names the state's file; "" at position 0
  std::string last_request_id;
  int64_t create_time_us = 0;  // since the Unix epoch
  int64_t update_time_us = 0;
  int64_t ttl_us = -1;  // -1: never ends
  std::map<std::string, std::string> labels;

  // The number of the record's file (Files::Stamp), which the file does not hold. 0: not known.
  uint64_t file_number = 0;
  int64_t last_use_us = 0;  // its time: when the session was last used, or a little before
};

// The owner of a record and its id, without the content.
struct SessionName {
  std::string tenant;
  std::string id;
  uint64_t generation = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_STATE_SESSION_RECORD_H_
