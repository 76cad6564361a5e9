// Code that benchmarks on a GPU share: memory, times, the limits of this GPU, the shape that is
// measured.
#ifndef SLUICE_TESTS_BENCH_CUDA_TIMING_H_
#define SLUICE_TESTS_BENCH_CUDA_TIMING_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <memory>

#include "absl/status/status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/gemm_lt.h"
#include "kernels/cuda/gemm_rows.h"

namespace sluice {

// The benchmark ends where a call fails.
void Ok(cudaError_t error);
void Ok(const absl::Status& status);

// The most that this GPU does, measured; every floor is computed from it.
struct GpuLimits {
  double copy_rate = 0.0;  // bytes read and written a second
  double gemm_rate = 0.0;  // FLOP a second
};

class CudaTiming {
 public:
  // Makes GPU `device` the thread's.
  explicit CudaTiming(int device);

  cudaStream_t stream() const { return stream_; }
  const char* gpu() const { return properties_.name; }
  std::unique_ptr<cuda::GemmLt> Library() const;

  // Copy bandwidth and GEMM rate; prints them.
  GpuLimits MeasureLimits();

  // Microseconds of one run, the median of several replays of a graph of `repeats` runs; run(i)
  // enqueues run i on stream().
  double Time(int repeats, const std::function<void(int)>& run) const;

 private:
  cudaDeviceProp properties_ = {};
  cudaStream_t stream_ = nullptr;
};

cuda::Memory DeviceBytes(int64_t bytes);
// Normal values of about this scale.
cuda::Memory RandomBf16(int64_t count, float scale);
double Seconds();

// A product of the 1.3B model: W is (n, k).
struct NamedProduct {
  const char* name;
  int64_t n, k;
  cuda::RowStore store;
};
inline constexpr NamedProduct kProducts[] = {{"mixer in", 6160, 2048, cuda::RowStore::kBf16},
                                             {"mixer out", 2048, 2048, cuda::RowStore::kAdd},
                                             {"gate, up", 11264, 2048, cuda::RowStore::kSwiGlu},
                                             {"down", 2048, 5632, cuda::RowStore::kAdd},
                                             {"lm head", 32000, 2048, cuda::RowStore::kFloat}};
cuda::LtStore LibraryStore(cuda::RowStore store);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_CUDA_TIMING_H_
