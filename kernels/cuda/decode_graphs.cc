#include "kernels/cuda/decode_graphs.h"

#include <algorithm>
#include <utility>

namespace sluice::cuda {

int32_t DecodeGraphs::Bucket(int32_t rows, int32_t most) {
  int32_t step = 1;
  while (step * 16 <= rows) step *= 2;
  return std::min((rows + step - 1) / step * step, most);
}

void DecodeGraphs::CaptureAll(uint64_t fingerprint, int32_t rows, int32_t most,
                              const Enqueue& enqueue) {
  for (int32_t next = 1; next <= rows && latch_.ok();) {
    const int32_t bucket = Bucket(next, most);
    Capture(fingerprint, bucket, enqueue);
    next = bucket + 1;
  }
}

void DecodeGraphs::Capture(uint64_t fingerprint, int32_t bucket, const Enqueue& enqueue) {
  Graph& graph = graphs_[bucket];
  if (graph.exec.get() != nullptr && graph.fingerprint == fingerprint) return;
  graph = Graph();
  graph.fingerprint = fingerprint;
  if (!latch_.Check(cudaStreamBeginCapture(stream_, cudaStreamCaptureModeThreadLocal),
                    "beginning a capture")) {
    return;
  }
  enqueue(bucket);
  Owned<cudaGraph_t, cudaGraphDestroy> captured;
  const cudaError_t ended = cudaStreamEndCapture(stream_, captured.receive());
  if (!latch_.Check(ended, "ending a capture")) return;
  latch_.Check(cudaGraphInstantiate(graph.exec.receive(), captured.get(), 0), "making a graph");
  latch_.Check(cudaGraphUpload(graph.exec.get(), stream_), "making a graph");
}

void DecodeGraphs::Launch(uint64_t fingerprint, int32_t rows, int32_t most,
                          const Enqueue& enqueue) {
  const int32_t bucket = Bucket(rows, most);
  Capture(fingerprint, bucket, enqueue);
  if (latch_.ok())
    latch_.Check(cudaGraphLaunch(graphs_[bucket].exec.get(), stream_), "launching a graph");
}

}  // namespace sluice::cuda
