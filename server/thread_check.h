// Finds out whether the process may have the threads that it needs. It asks before they are
// started, because some libraries cannot say that they got none.
#ifndef SLUICE_SERVER_THREAD_CHECK_H_
#define SLUICE_SERVER_THREAD_CHECK_H_

#include <chrono>

#include "absl/status/status.h"
#include "absl/strings/string_view.h"

namespace sluice {

// Starts `count` threads, all at once, and ends them. RESOURCE_EXHAUSTED with the system's reason,
// how many there were, and where to look.
absl::Status CheckThreads(int count);

// The same error for a thread that could not be started later; `why` is the system's reason.
absl::Status NoThread(absl::string_view why);

// Waits until a thread of this process has that name (15 characters at most), for `patience` at
// most.
bool WaitForThread(absl::string_view name, std::chrono::milliseconds patience);

// While it lives, an abort ends the process as that error does: with one line and exit code 3. For
// calls of a library that asserts that it got its threads. One at a time.
class AbortMeansNoThread {
 public:
  AbortMeansNoThread();
  ~AbortMeansNoThread();
  AbortMeansNoThread(const AbortMeansNoThread&) = delete;
  AbortMeansNoThread& operator=(const AbortMeansNoThread&) = delete;
};

}  // namespace sluice

#endif  // SLUICE_SERVER_THREAD_CHECK_H_
