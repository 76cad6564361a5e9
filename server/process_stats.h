// Reads what the kernel says about this process.
#ifndef SLUICE_SERVER_PROCESS_STATS_H_
#define SLUICE_SERVER_PROCESS_STATS_H_

#include <cstdint>

namespace sluice {

struct ProcessStats {
  double cpu_seconds = 0;
  double resident_bytes = 0;
  double open_fds = 0;
  double max_fds = 0;
  double start_time_seconds = 0;  // Unix time
};

// Any thread. What cannot be read is 0.
ProcessStats ReadProcessStats();
int64_t ResidentBytes();
// Resident bytes that belong to no file: heaps and stacks.
int64_t AnonymousBytes();

}  // namespace sluice

#endif  // SLUICE_SERVER_PROCESS_STATS_H_
