// Token mixers of Core::kSoftmax, driven by their spec: the front (norm, position and scale of q
// and k, in place in the rows of the input projection), the core (core_softmax.h) over the rows
// that the state keeps, the back (linear_back.h).
#ifndef SLUICE_KERNELS_CPU_SOFTMAX_MIXER_H_
#define SLUICE_KERNELS_CPU_SOFTMAX_MIXER_H_

#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cpu/core_softmax.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "kernels/model_spec.h"
#include "kernels/ops.h"
#include "kernels/step_rows.h"

namespace sluice {

class SoftmaxMixer {
 public:
  SoftmaxMixer(ThreadPool* pool, StatePool* states) : pool_(pool), states_(states) {}

  // Once: the scratch of steps of at most `max_rows` rows, for the model's mixers of this core and
  // sequences of at most `max_tokens`. RESOURCE_EXHAUSTED when memory is short.
  absl::Status Allocate(const ModelSpec& spec, int32_t max_rows, int64_t max_tokens);

  void Run(const StepRows& rows, const MixArgs& args);

 private:
  // Consecutive tokens of one prompt segment.
  struct Tile {
    const PromptSegment* segment = nullptr;
    int64_t begin = 0;  // first token, counted from the segment's first
    int64_t tokens = 0;
    int64_t row = 0;  // of the step, of the segment's first token
  };
  // A span of the keys that one decode row sees.
  struct Piece {
    const DecodeRow* decode = nullptr;
    int64_t row = 0;    // of the step
    int64_t begin = 0;  // positions of its first key and behind its last
    int64_t end = 0;
    int64_t parts = 0;  // of the row, where this is its first; else 0
  };
  // What the tasks of one layer share.
  struct Layer {
    const MixArgs* args;
    int64_t stride;  // of a row of the input projection
    int64_t groups;  // query heads that share a key head

    float* In(int64_t row) const { return static_cast<float*>(args->in.data) + row * stride; }
    float* Out(int64_t row) const {
      return static_cast<float*>(args->out.data) + row * PaddedCols(args->out.cols);
    }
  };
  // Keys and values of one sequence: those of positions from `kept` on are rows of the step.
  struct Sources {
    TokenRows k, v;
    const float* in = nullptr;  // row of the step at position `kept`
    int64_t kept = 0;
    int64_t stride = 0;
    const MixerSpec* spec = nullptr;

    // Head `head` of the positions [begin, end) of the block that begins at `first`.
    void Fill(int64_t first, int64_t begin, int64_t end, int64_t head, KeyBlock* block) const;
  };

  // What the heads of one piece have come to.
  struct PieceView {
    float* acc;  // (q_heads, PaddedCols(dv))
    float* max;  // (q_heads)
    float* sum;  // (q_heads)
  };

  void Front(const Layer& layer, int64_t row, int64_t position, float* scratch) const;
  void KeepRow(const Layer& layer, int32_t slot, int64_t row, int64_t position) const;
  void RunDecode(const Layer& layer, const StepRows& rows);
  void RunPieces(const Layer& layer);
  void AttendPiece(const Layer& layer, int64_t piece, int64_t head, int thread);
  void RunPrompts(const Layer& layer, const StepRows& rows);
  void AttendTile(const Layer& layer, const Tile& tile, int64_t head, int thread);
  void Back(const Layer& layer, int64_t row) const;

  // `row` of the step is the one at position `kept`.
  Sources SourcesOf(const Layer& layer, int32_t slot, int64_t kept, int64_t row) const;
  PieceView ViewOf(int64_t piece, const MixerSpec& spec) const;
  float* Scratch(int thread) const { return thread_scratch_.floats() + thread * thread_floats_; }
  QueryRow* Queries(int thread) { return queries_.data() + thread * most_rows_; }

  ThreadPool* const pool_;
  StatePool* const states_;
  int64_t thread_floats_ = 0;
  HostBuffer thread_scratch_;      // (threads, thread_floats_)
  int64_t most_rows_ = 0;          // query rows of a task
  std::vector<QueryRow> queries_;  // (threads, most_rows_)
  int64_t piece_floats_ = 0;
  HostBuffer piece_scratch_;  // (pieces_.size(), piece_floats_)
  std::vector<Tile> tiles_;   // of the current layer; all allocated at start
  std::vector<Piece> pieces_;
  int64_t num_pieces_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_KERNELS_CPU_SOFTMAX_MIXER_H_
