// The token mixer of a GLA layer, whole: short convolution, feature map, log gate, recurrence
// (decode rows) or chunks (prompt segments) on the slots' states, per-head norm, output gate.
#ifndef SLUICE_KERNELS_CPU_MIXER_H_
#define SLUICE_KERNELS_CPU_MIXER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/gla_chunk.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"

namespace sluice {

class Mixer {
 public:
  Mixer(ThreadPool* pool, StatePool* states) : pool_(pool), states_(states) {}

  // Once: the scratch of steps of at most `max_rows` rows. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelShape& shape, int32_t max_rows);

  void Run(const StepRows& rows, const MixArgs& args);

 private:
  // At most kChunk consecutive tokens of one prompt segment.
  struct Chunk {
    const PromptSegment* segment = nullptr;
    int64_t begin = 0;  // first token, counted from the segment's first
    int64_t tokens = 0;
    int64_t row = 0;  // of the step, of the segment's first token
  };
  // Neighbouring chunks of one segment.
  struct Piece {
    int64_t first_chunk = 0;
    int64_t chunks = 0;
  };

  void DecodeHead(const DecodeRow& row, int64_t row_index, int64_t kv_head, const MixArgs& args,
                  float* scratch);

  // The phases of a block of chunks; each is one parallel loop.
  void RunBlock(const MixArgs& args);
  void PrepareChunk(int64_t chunk, const MixArgs& args);
  void AdvanceConvTails(const Chunk& chunk, const MixArgs& args);
  void FinishChunk(int64_t chunk, const MixArgs& args);

  GlaChunk HeadOfChunk(int64_t chunk, int64_t kv_head) const;
  float* ChunkBuffer(int64_t chunk, int64_t offset) const {
    return chunk_scratch_.floats() + chunk * chunk_floats_ + offset;
  }

  ThreadPool* const pool_;
  StatePool* const states_;
  ModelShape shape_;
  int64_t groups_ = 1;  // query heads per kv head
  int64_t dv_padded_ = 0;
  float q_scale_ = 1.0f;  // dk^-1/2

  int64_t thread_floats_ = 0;
  HostBuffer thread_scratch_;  // (threads, thread_floats_)

  // Where the parts of a chunk's scratch begin, in floats.
  struct ChunkOffsets {
    int64_t q = 0, k = 0, alpha = 0, v = 0, o = 0;
    int64_t q_decayed = 0, k_decayed = 0, decay = 0, scores = 0;
  };
  ChunkOffsets at_;
  int64_t chunk_floats_ = 0;
  HostBuffer chunk_scratch_;   // (chunks_.size(), chunk_floats_)
  std::vector<Chunk> chunks_;  // of the current block; all allocated at start
  std::vector<Piece> pieces_;
  int64_t num_chunks_ = 0;
  int64_t num_pieces_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_MIXER_H_
