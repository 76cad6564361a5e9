#include "tests/bench/cuda_timing.h"

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <random>
#include <utility>
#include <vector>

#include "tests/bench/cuda_copy.h"

namespace sluice {

using cuda::Memory;
using cuda::MemoryKind;
using Bf16 = __nv_bfloat16;

void Ok(cudaError_t error) {
  if (error == cudaSuccess) return;
  std::printf("cuda: %s\n", cudaGetErrorString(error));
  std::exit(1);
}
void Ok(const absl::Status& status) {
  if (status.ok()) return;
  std::printf("%s\n", status.ToString().c_str());
  std::exit(1);
}

Memory DeviceBytes(int64_t bytes) {
  absl::StatusOr<Memory> memory = Memory::Allocate(MemoryKind::kDevice, bytes, "benchmark");
  Ok(memory.status());
  return *std::move(memory);
}

Memory RandomBf16(int64_t count, float scale) {
  static std::vector<uint16_t> host = [] {
    std::mt19937 random(1);
    std::normal_distribution<float> normal;
    std::vector<uint16_t> values(1 << 22);
    for (uint16_t& v : values) {
      const float x = normal(random);
      uint32_t bits;
      std::memcpy(&bits, &x, 4);
      v = static_cast<uint16_t>(bits >> 16);
    }
    return values;
  }();
  const int shift = static_cast<int>(std::lround(-std::log2(scale)));
  std::vector<uint16_t> scaled(host);
  for (uint16_t& v : scaled) v = static_cast<uint16_t>(v - (shift << 7));
  Memory memory = DeviceBytes(count * 2);
  for (int64_t at = 0; at < count; at += static_cast<int64_t>(scaled.size())) {
    const int64_t part = std::min<int64_t>(scaled.size(), count - at);
    Ok(cudaMemcpy(memory.as<uint16_t>() + at, scaled.data(), part * 2, cudaMemcpyHostToDevice));
  }
  return memory;
}

double Seconds() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

cuda::LtStore LibraryStore(cuda::RowStore store) {
  return store == cuda::RowStore::kAdd     ? cuda::LtStore::kAdd
         : store == cuda::RowStore::kFloat ? cuda::LtStore::kFloat
                                           : cuda::LtStore::kBf16;
}

CudaTiming::CudaTiming(int device) {
  Ok(cudaSetDevice(device));
  Ok(cudaGetDeviceProperties(&properties_, device));
  Ok(cudaStreamCreateWithFlags(&stream_, cudaStreamNonBlocking));
}

std::unique_ptr<cuda::GemmLt> CudaTiming::Library() const {
  absl::StatusOr<std::unique_ptr<cuda::GemmLt>> lt = cuda::GemmLt::Create(gpu());
  Ok(lt.status());
  return *std::move(lt);
}

double CudaTiming::Time(int repeats, const std::function<void(int)>& run) const {
  run(0);
  Ok(cudaStreamSynchronize(stream_));
  cudaGraph_t graph;
  cudaGraphExec_t exec;
  Ok(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal));
  for (int i = 0; i < repeats; ++i) run(i);
  Ok(cudaStreamEndCapture(stream_, &graph));
  Ok(cudaGraphInstantiate(&exec, graph, 0));
  cudaEvent_t begin, end;
  Ok(cudaEventCreate(&begin));
  Ok(cudaEventCreate(&end));
  std::vector<double> times;
  for (int i = 0; i < 8; ++i) {
    Ok(cudaEventRecord(begin, stream_));
    Ok(cudaGraphLaunch(exec, stream_));
    Ok(cudaEventRecord(end, stream_));
    Ok(cudaEventSynchronize(end));
    float ms = 0.0f;
    Ok(cudaEventElapsedTime(&ms, begin, end));
    if (i > 0) times.push_back(ms * 1e3 / repeats);
  }
  Ok(cudaGraphExecDestroy(exec));
  Ok(cudaGraphDestroy(graph));
  std::sort(times.begin(), times.end());
  return times[times.size() / 2];
}

GpuLimits CudaTiming::MeasureLimits() {
  const int64_t bytes = int64_t{4} << 30;
  Memory a = DeviceBytes(bytes), b = DeviceBytes(bytes);
  // By a kernel: copy nodes of a graph run on the copy engines, at two thirds of the rate.
  const double copy =
      Time(4, [&](int) { Ok(cuda::LaunchCopy(a.as<void>(), b.as<void>(), bytes, stream_)); });
  GpuLimits limits;
  limits.copy_rate = 2.0 * bytes / copy * 1e6;
  const int64_t n = 8192;
  Memory x = RandomBf16(n * n, 1.0f), w = RandomBf16(n * n, 1.0f), y = DeviceBytes(n * n * 2);
  auto lt = Library();
  cuda::LtGemm gemm = {x.as<Bf16>(), w.as<Bf16>(), y.as<void>(), n, n, n, n, cuda::LtStore::kBf16};
  const double product = Time(10, [&](int) { Ok(lt->Run(gemm, stream_)); });
  limits.gemm_rate = 2.0 * n * n * n / product * 1e6;
  std::printf(
      "%s: copy %.0f GB/s (bytes read and written), bf16 GEMM 8192^3 %.0f TFLOP/s, cublasLt %llu\n",
      gpu(), limits.copy_rate / 1e9, limits.gemm_rate / 1e12,
      static_cast<unsigned long long>(lt->version()));
  return limits;
}

}  // namespace sluice
