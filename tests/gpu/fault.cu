#include <cuda_runtime.h>

#include "tests/gpu/fault.h"

namespace sluice {
namespace {

__global__ void WriteNowhere(int* nowhere) { *nowhere = 1; }

__global__ void __launch_bounds__(1024) Spin(unsigned long long nanoseconds) {
  unsigned long long begin, now;
  asm volatile("mov.u64 %0, %globaltimer;" : "=l"(begin));
  do {
    asm volatile("mov.u64 %0, %globaltimer;" : "=l"(now));
  } while (now - begin < nanoseconds);
}

}  // namespace

void CauseHang(int device, int seconds) {
  cudaStream_t stream = nullptr;
  int blocks = 0, processors = 0;
  (void)cudaSetDevice(device);
  (void)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  (void)cudaOccupancyMaxActiveBlocksPerMultiprocessor(&blocks, Spin, 1024, 0);
  (void)cudaDeviceGetAttribute(&processors, cudaDevAttrMultiProcessorCount, device);
  Spin<<<blocks * processors, 1024, 0, stream>>>(seconds * 1000000000ull);
}

void CauseFault(int device) {
  cudaStream_t stream = nullptr;
  (void)cudaSetDevice(device);
  (void)cudaStreamCreateWithFlags(&stream, cudaStreamNonBlocking);
  WriteNowhere<<<1, 1, 0, stream>>>(reinterpret_cast<int*>(16));
}

}  // namespace sluice
