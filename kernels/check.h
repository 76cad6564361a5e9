// A check of our own invariants. Never reachable from input: what a peer or a file can cause is an
// absl::Status.
#ifndef SLUICE_KERNELS_CHECK_H_
#define SLUICE_KERNELS_CHECK_H_

#include <cstdio>
#include <cstdlib>

namespace sluice {

[[noreturn]] inline void CheckFailed(const char* condition, const char* file, int line) {
  std::fprintf(stderr, "%s:%d: bug: check failed: %s\n", file, line, condition);
  std::abort();
}

}  // namespace sluice

#define SLUICE_CHECK(condition) \
  ((condition) ? (void)0 : ::sluice::CheckFailed(#condition, __FILE__, __LINE__))

#endif  // SLUICE_KERNELS_CHECK_H_
