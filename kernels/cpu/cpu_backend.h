// The CPU backend: the oracle that every device is checked against, and what serves where there is
// no device. Readable first, but fast: Highway SIMD chosen at run time, all threads of the machine.
#ifndef SLUICE_KERNELS_CPU_CPU_BACKEND_H_
#define SLUICE_KERNELS_CPU_CPU_BACKEND_H_

#include <memory>

#include "kernels/backend.h"

namespace sluice {

struct CpuOptions {
  int threads =
      0;  // 0: all hardware threads that the process may run on. Changes no bit of any result.
};

// Steps run in the calling thread and the pool, and are done when EndStep returns: Await never
// blocks.
std::unique_ptr<Backend> MakeCpuBackend(const CpuOptions& options);

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_CPU_BACKEND_H_
