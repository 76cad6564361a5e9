// A session as its owner sees it.
#ifndef SLUICE_ENGINE_SESSION_INFO_H_
#define SLUICE_ENGINE_SESSION_INFO_H_

#include <cstdint>
#include <map>
#include <string>

#include "absl/time/time.h"

namespace sluice {

// The place of a state: the fastest of the places that have it.
enum class StateTier : uint8_t { kNone, kDevice, kHost, kDisk };

struct SessionInfo {
  std::string id;
  bool unreadable = false;  // its record or state cannot be read; what is not known is left out
  std::string affinity;
  std::string fingerprint;  // of the model it belongs to
  std::string etag;
  int64_t position = 0;     // tokens in the history
  std::string numerics_id;  // "" at position 0
  StateTier tier = StateTier::kNone;
  bool busy = false;        // a call is writing to it
  int64_t state_bytes = 0;  // 0 at position 0
  bool durable = false;     // all of it is on disk
  std::string last_request_id;
  std::string note{};  // of its state; no owner sees it
  absl::Time create_time;
  absl::Time update_time;
  absl::Time expire_time = absl::InfiniteFuture();  // InfiniteFuture: never
  std::map<std::string, std::string> labels;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_SESSION_INFO_H_
