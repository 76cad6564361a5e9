// Token mixers whose state is a matrix for each head, Core::kLinear and Core::kDelta, driven by
// their spec: front (linear_front.h), core (linear_recurrent.h, linear_chunk.h, core_linear.h,
// core_delta.h), back (linear_back.h). Gated linear attention itself has a driver of its own in
// mixer.h, which fuses the three per head.
#ifndef SLUICE_KERNELS_CPU_LINEAR_MIXER_H_
#define SLUICE_KERNELS_CPU_LINEAR_MIXER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/core_linear.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/linear_chunk.h"
#include "kernels/cpu/linear_front.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/model_spec.h"
#include "kernels/ops.h"
#include "kernels/step_rows.h"

namespace sluice {

class LinearMixer {
 public:
  LinearMixer(ThreadPool* pool, StatePool* states) : pool_(pool), states_(states) {}

  // Once: the scratch of steps of at most `max_rows` rows, for those of the model's mixers that are
  // not gated linear attention. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelSpec& spec, int32_t max_rows);

  void Run(const StepRows& rows, const MixArgs& args);

 private:
  // At most kChunk rows of the step: consecutive tokens of one prompt segment, or decode rows.
  struct Chunk {
    const PromptSegment* segment = nullptr;  // null: decode rows
    const DecodeRow* decode = nullptr;       // the first of them
    int64_t begin = 0;                       // first token, counted from the segment's first
    int64_t tokens = 0;
    int64_t row = 0;  // of the step, of the first token
  };
  // Neighbouring chunks of one segment.
  struct Piece {
    int64_t first_chunk = 0;
    int64_t chunks = 0;
  };
  // The offsets of the parts of a chunk's scratch, and the widths of their rows, in floats.
  struct Layout {
    int64_t q_cols = 0, k_cols = 0, v_cols = 0, decay_cols = 0, skip_cols = 0, beta_cols = 0,
            gate_cols = 0;
    int64_t q = 0, k = 0, v = 0, decay = 0, skip = 0, beta = 0, gate = 0, o = 0, den = 0;
    int64_t q_decayed = 0, k_decayed = 0, whole_decay = 0, scores = 0;
    int64_t floats = 0;
  };
  static Layout MakeLayout(const MixerSpec& spec);
  static int64_t ThreadFloats(const MixerSpec& spec);

  void RunDecodeBlock(const MixArgs& args);
  void RunPromptBlock(const MixArgs& args);

  void Front(int64_t chunk, int64_t begin, int64_t end, const MixArgs& args, float* scratch);
  void PadChunk(int64_t chunk, const MixerSpec& spec);
  void ScanLightNet(const MixArgs& args, const Piece& piece, int64_t head);
  void DecodeHead(const MixArgs& args, int64_t chunk, int64_t t, int64_t head, float* scratch);
  void Scores(const MixArgs& args, int64_t chunk, int64_t set, float* scratch);
  // One state head and columns [col, col_end) of it through neighbouring chunks.
  void AdvanceState(const MixArgs& args, const Piece& piece, int64_t head, int64_t col,
                    int64_t col_end);
  void Back(int64_t chunk, int64_t begin, int64_t end, const MixArgs& args);

  FrontRow RowOf(const Chunk& chunk, int64_t t, const MixArgs& args) const;
  LinearChunk StateOfChunk(const MixerSpec& spec, int64_t chunk, int64_t head) const;
  float* Buffer(int64_t chunk, int64_t offset) const {
    return chunk_scratch_.floats() + chunk * chunk_floats_ + offset;
  }
  float* Scratch(int thread) const { return thread_scratch_.floats() + thread * thread_floats_; }

  ThreadPool* const pool_;
  StatePool* const states_;
  Layout at_;  // of the mixer being run
  int64_t thread_floats_ = 0;
  HostBuffer thread_scratch_;  // (threads, thread_floats_)
  int64_t chunk_floats_ = 0;
  HostBuffer chunk_scratch_;   // (chunks_.size(), chunk_floats_)
  std::vector<Chunk> chunks_;  // of the current block; all allocated at start
  std::vector<Piece> pieces_;
  int64_t num_chunks_ = 0;
  int64_t num_pieces_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_LINEAR_MIXER_H_
