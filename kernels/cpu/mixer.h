// Token mixers: takes a step's rows through front (front.h), core and back (back.h), decode rows
// by the recurrence and prompt segments in chunks, on the slots' states.
#ifndef SLUICE_KERNELS_CPU_MIXER_H_
#define SLUICE_KERNELS_CPU_MIXER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/front.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/linear_chunk.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/ops.h"
#include "kernels/step_rows.h"

namespace sluice {

class Mixer {
 public:
  Mixer(ThreadPool* pool, StatePool* states) : pool_(pool), states_(states) {}

  // Once: the scratch of steps of at most `max_rows` rows. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelSpec& spec, int32_t max_rows);

  void Run(const StepRows& rows, const MixArgs& args);

 private:
  // At most kChunk consecutive tokens of one prompt segment.
  struct Chunk {
    const PromptSegment* segment = nullptr;
    RowSpan span;
  };
  // Neighbouring chunks of one segment.
  struct Piece {
    int64_t first_chunk = 0;
    int64_t chunks = 0;
  };
  // The offsets of the parts of a scratch, in floats.
  struct Offsets {
    int64_t q = 0, k = 0, decay = 0, v = 0, o = 0;  // of decode rows, and of chunks
    int64_t q_decayed = 0, k_decayed = 0, chunk_decay = 0, scores = 0;  // of chunks alone
    int64_t floats = 0;
  };
  static Offsets DecodeOffsets(const MixerSpec& spec);
  static Offsets ChunkOffsets(const MixerSpec& spec);

  void DecodeHead(const DecodeRow& row, int64_t row_index, int64_t head, const MixArgs& args,
                  float* scratch);

  // The phases of a block of chunks; each is one parallel loop.
  void RunBlock(const MixArgs& args);
  void PrepareChunk(int64_t chunk, const MixArgs& args);
  void FinishChunk(int64_t chunk, const MixArgs& args);

  LinearChunk HeadOfChunk(const MixerSpec& spec, int64_t chunk, int64_t head) const;
  float* StateHead(const MixArgs& args, int32_t slot, int64_t head) const {
    return states_->Part(slot, args.layer, StatePartKind::kMatrix) +
           head * args.spec->dk * PaddedCols(args.spec->dv);
  }
  float* ChunkBuffer(int64_t chunk, int64_t offset) const {
    return chunk_scratch_.floats() + chunk * chunk_floats_ + offset;
  }

  ThreadPool* const pool_;
  StatePool* const states_;

  int64_t thread_floats_ = 0;
  HostBuffer thread_scratch_;  // (threads, thread_floats_)

  Offsets at_;  // of a chunk of the mixer that runs
  int64_t chunk_floats_ = 0;
  HostBuffer chunk_scratch_;   // (chunks_.size(), chunk_floats_)
  std::vector<Chunk> chunks_;  // of the current block; all allocated at start
  std::vector<Piece> pieces_;
  int64_t num_chunks_ = 0;
  int64_t num_pieces_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_MIXER_H_
