// Steps of decode rows alone as CUDA graphs, one for each number of rows, rounded up.
#ifndef SLUICE_KERNELS_CUDA_DECODE_GRAPHS_H_
#define SLUICE_KERNELS_CUDA_DECODE_GRAPHS_H_

#include <cuda_runtime_api.h>

#include <cstdint>
#include <functional>
#include <map>

#include "kernels/cuda/fault_latch.h"
#include "kernels/cuda/stream.h"

namespace sluice::cuda {

class DecodeGraphs {
 public:
  // Enqueues a step of so many decode rows on the stream.
  using Enqueue = std::function<void(int32_t rows)>;

  DecodeGraphs(FaultLatch* latch, cudaStream_t stream) : latch_(*latch), stream_(stream) {}

  // Numbers of rows that have graphs: steps of an eighth at most, none above `most`.
  static int32_t Bucket(int32_t rows, int32_t most);

  // Captures a graph for every bucket of up to `rows` rows. `fingerprint` tells what `enqueue`
  // enqueues apart from anything else it might. Nothing of the steps is run.
  void CaptureAll(uint64_t fingerprint, int32_t rows, int32_t most, const Enqueue& enqueue);
  // Launches the graph for `rows` rows; captures it where it is not there.
  void Launch(uint64_t fingerprint, int32_t rows, int32_t most, const Enqueue& enqueue);

  void Clear() { graphs_.clear(); }

 private:
  struct Graph {
    uint64_t fingerprint = 0;
    Owned<cudaGraphExec_t, cudaGraphExecDestroy> exec;
  };
  void Capture(uint64_t fingerprint, int32_t bucket, const Enqueue& enqueue);

  FaultLatch& latch_;
  const cudaStream_t stream_;
  std::map<int32_t, Graph> graphs_;  // by bucket
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_DECODE_GRAPHS_H_
