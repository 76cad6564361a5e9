#include "kernels/cpu/mixer.h"

#include <algorithm>

#include "kernels/check.h"
#include "kernels/cores.h"
#include "kernels/cpu/back.h"
#include "kernels/cpu/linear_recurrent.h"

namespace sluice {
namespace {

// Chunks whose scratch exists at a time: enough for all threads, few enough for the caches.
constexpr int64_t kMinBlockChunks = 8;
// Columns of the state that make a task of their own.
constexpr int64_t kTaskCols = 64;

int64_t Groups(const MixerSpec& s) { return s.q_heads / s.state_heads; }

// Takes places in a scratch one after another, each at a line.
class Places {
 public:
  int64_t Take(int64_t floats) {
    const int64_t begin = floats_;
    floats_ += PaddedCols(floats);
    return begin;
  }
  int64_t floats() const { return floats_; }

 private:
  int64_t floats_ = 0;
};

}  // namespace

// The offsets of one token with all of its heads; DecodeHead uses the places of one of them.
Mixer::Offsets Mixer::DecodeOffsets(const MixerSpec& s) {
  Places places;
  Offsets at;
  at.q = places.Take(s.q_heads * s.dk);
  at.k = places.Take(s.k_heads * s.dk);
  at.decay = places.Take(s.state_heads * s.dk);
  at.v = places.Take(s.v_heads * PaddedCols(s.dv));
  at.o = places.Take(s.heads() * PaddedCols(s.dv));
  at.floats = places.floats() + kLineFloats;
  return at;
}

Mixer::Offsets Mixer::ChunkOffsets(const MixerSpec& s) {
  const int64_t dv = PaddedCols(s.dv);
  Places places;
  Offsets at;
  at.q = places.Take(kChunk * PaddedCols(s.q_heads * s.dk));
  at.k = places.Take(kChunk * PaddedCols(s.k_heads * s.dk));
  at.decay = places.Take(kChunk * PaddedCols(s.state_heads * s.dk));
  at.v = places.Take(kChunk * s.v_heads * dv);
  at.o = places.Take(kChunk * s.heads() * dv);
  at.q_decayed = places.Take(kChunk * s.heads() * s.dk);
  at.k_decayed = places.Take(kChunk * s.state_heads * s.dk);
  at.chunk_decay = places.Take(s.state_heads * s.dk);
  at.scores = places.Take(kChunk * kChunk * s.heads());
  at.floats = places.floats();
  return at;
}

absl::Status Mixer::Allocate(const ModelSpec& spec, int32_t max_rows) {
  ForEachMixer(spec, [&](int64_t, const MixerSpec& s) {
    if (!FusedGla(s)) return;
    thread_floats_ = std::max(
        {thread_floats_, DecodeOffsets(s).floats, PaddedCols(LinearChunkScratch(s.dk, Groups(s)))});
    chunk_floats_ = std::max(chunk_floats_, ChunkOffsets(s).floats);
  });
  absl::StatusOr<HostBuffer> buffer =
      HostBuffer::Allocate(pool_->threads(), thread_floats_ * sizeof(float), "mixer scratch");
  if (!buffer.ok()) return buffer.status();
  thread_scratch_ = std::move(*buffer);
  const int64_t chunks =
      std::min<int64_t>(std::max<int64_t>(kMinBlockChunks, 2 * pool_->threads()), max_rows);
  buffer = HostBuffer::Allocate(chunks, chunk_floats_ * sizeof(float), "mixer scratch");
  if (!buffer.ok()) return buffer.status();
  chunk_scratch_ = std::move(*buffer);
  chunks_.resize(chunks);
  pieces_.resize(chunks);
  return absl::OkStatus();
}

void Mixer::Run(const StepRows& rows, const MixArgs& args) {
  const int64_t heads = args.spec->state_heads;
  pool_->ParallelFor(rows.num_decode * heads, [&](int64_t task, int thread) {
    const int64_t row = task / heads;
    DecodeHead(rows.decode[row], row, task % heads, args,
               thread_scratch_.floats() + thread * thread_floats_);
  });
  int64_t row = rows.num_decode;
  num_chunks_ = num_pieces_ = 0;
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    const PromptSegment& segment = rows.prompts[i];
    SLUICE_CHECK(segment.start % kChunk == 0);
    for (int64_t begin = 0; begin < segment.length; begin += kChunk) {
      if (num_chunks_ == static_cast<int64_t>(chunks_.size())) RunBlock(args);
      if (begin == 0 || num_chunks_ == 0) pieces_[num_pieces_++] = {num_chunks_, 0};
      chunks_[num_chunks_++] = {&segment,
                                {.slot = segment.slot,
                                 .first_row = row,
                                 .begin = begin,
                                 .tokens = std::min(kChunk, segment.length - begin),
                                 .position = segment.position + begin}};
      ++pieces_[num_pieces_ - 1].chunks;
    }
    row += segment.length;
  }
  RunBlock(args);
}

void Mixer::DecodeHead(const DecodeRow& row, int64_t row_index, int64_t head, const MixArgs& args,
                       float* scratch) {
  const MixerSpec& s = *args.spec;
  const Offsets at = DecodeOffsets(s);
  const RowSpan span = {
      .slot = row.slot, .first_row = row_index, .tokens = 1, .position = row.position};
  const CoreInputs in = {.q = scratch + at.q,
                         .k = scratch + at.k,
                         .decay = scratch + at.decay,
                         .decay_stride = PaddedCols(s.state_heads * s.dk),
                         .v = scratch + at.v};
  const HeadRange heads = {head, head + 1};
  const Front front(args, states_);
  front.Run(span, heads, in);
  front.AdvanceTails(span, heads, 1);

  const int64_t groups = Groups(s), dv = PaddedCols(s.dv);
  float* o = scratch + at.o;
  LinearRecurrent({.dk = s.dk,
                   .dv_padded = dv,
                   .groups = groups,
                   .q = in.q + head * groups * s.dk,
                   .q_stride = s.dk,
                   .k = in.k + head * s.dk,
                   .alpha = in.decay + head * s.dk,
                   .v = in.v + head * dv,
                   .state = StateHead(args, row.slot, head),
                   .o = o + head * groups * dv});
  RunBack(args, row_index, head * groups, (head + 1) * groups, o, dv);
}

void Mixer::RunBlock(const MixArgs& args) {
  if (num_chunks_ == 0) return;
  const MixerSpec& s = *args.spec;
  at_ = ChunkOffsets(s);
  pool_->ParallelFor(num_chunks_, [&](int64_t chunk, int) { PrepareChunk(chunk, args); });
  for (int64_t i = 0; i < num_chunks_; ++i) {
    const Chunk& chunk = chunks_[i];
    if (chunk.span.begin + chunk.span.tokens != chunk.segment->length) continue;
    Front(args, states_).AdvanceTails(chunk.span, {0, s.state_heads}, chunk.segment->length);
  }
  pool_->ParallelFor(num_chunks_ * s.state_heads, [&](int64_t task, int thread) {
    LinearChunkScores(HeadOfChunk(s, task / s.state_heads, task % s.state_heads),
                      thread_scratch_.floats() + thread * thread_floats_);
  });
  const int64_t dv = PaddedCols(s.dv);
  const int64_t col_tasks = (dv + kTaskCols - 1) / kTaskCols;
  pool_->ParallelFor(num_pieces_ * s.state_heads * col_tasks, [&](int64_t task, int) {
    const int64_t col = task % col_tasks * kTaskCols;
    const int64_t head = task / col_tasks % s.state_heads;
    const Piece& piece = pieces_[task / col_tasks / s.state_heads];
    float* state = StateHead(args, chunks_[piece.first_chunk].span.slot, head);
    for (int64_t i = 0; i < piece.chunks; ++i) {
      LinearChunkState(HeadOfChunk(s, piece.first_chunk + i, head), col,
                       std::min(col + kTaskCols, dv), state, dv);
    }
  });
  pool_->ParallelFor(num_chunks_, [&](int64_t chunk, int) { FinishChunk(chunk, args); });
  num_chunks_ = num_pieces_ = 0;
}

// Fills q, k, decay and v of the chunk's scratch for all heads. Rows that pad the last sub-chunk
// change nothing.
void Mixer::PrepareChunk(int64_t index, const MixArgs& args) {
  const MixerSpec& s = *args.spec;
  const RowSpan& span = chunks_[index].span;
  const CoreInputs in = {.q = ChunkBuffer(index, at_.q),
                         .q_stride = PaddedCols(s.q_heads * s.dk),
                         .k = ChunkBuffer(index, at_.k),
                         .k_stride = PaddedCols(s.k_heads * s.dk),
                         .decay = ChunkBuffer(index, at_.decay),
                         .decay_stride = PaddedCols(s.state_heads * s.dk),
                         .v = ChunkBuffer(index, at_.v),
                         .v_stride = s.v_heads * PaddedCols(s.dv)};
  Front(args, states_).Run(span, {0, s.state_heads}, in);
  const int64_t padding = RoundUp(span.tokens, kSubChunk) - span.tokens;
  std::fill_n(in.q + span.tokens * in.q_stride, padding * in.q_stride, 0.0f);
  std::fill_n(in.k + span.tokens * in.k_stride, padding * in.k_stride, 0.0f);
  std::fill_n(in.decay + span.tokens * in.decay_stride, padding * in.decay_stride, 1.0f);
  std::fill_n(in.v + span.tokens * in.v_stride, padding * in.v_stride, 0.0f);
}

LinearChunk Mixer::HeadOfChunk(const MixerSpec& s, int64_t chunk, int64_t head) const {
  const int64_t dv = PaddedCols(s.dv);
  const int64_t out_head = head * Groups(s);
  LinearChunk c;
  c.tokens = chunks_[chunk].span.tokens;
  c.dk = s.dk;
  c.groups = Groups(s);
  c.q = ChunkBuffer(chunk, at_.q) + out_head * s.dk;
  c.q_stride = PaddedCols(s.q_heads * s.dk);
  c.k = ChunkBuffer(chunk, at_.k) + head * s.dk;
  c.k_stride = PaddedCols(s.k_heads * s.dk);
  c.alpha = ChunkBuffer(chunk, at_.decay) + head * s.dk;
  c.alpha_stride = PaddedCols(s.state_heads * s.dk);
  c.v = ChunkBuffer(chunk, at_.v) + head * dv;
  c.v_stride = s.v_heads * dv;
  c.o = ChunkBuffer(chunk, at_.o) + out_head * kChunk * dv;
  c.o_stride = dv;
  c.q_decayed = ChunkBuffer(chunk, at_.q_decayed) + out_head * kChunk * s.dk;
  c.k_decayed = ChunkBuffer(chunk, at_.k_decayed) + head * kChunk * s.dk;
  c.decay = ChunkBuffer(chunk, at_.chunk_decay) + head * s.dk;
  c.scores = ChunkBuffer(chunk, at_.scores) + out_head * kChunk * kChunk;
  return c;
}

void Mixer::FinishChunk(int64_t index, const MixArgs& args) {
  const MixerSpec& s = *args.spec;
  const RowSpan& span = chunks_[index].span;
  const int64_t dv = PaddedCols(s.dv);
  for (int64_t t = 0; t < span.tokens; ++t) {
    RunBack(args, span.row() + t, 0, s.heads(), ChunkBuffer(index, at_.o) + t * dv, kChunk * dv);
  }
}

}  // namespace sluice
