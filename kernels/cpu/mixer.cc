#include "kernels/cpu/mixer.h"

#include <algorithm>
#include <cmath>
#include <cstring>

#include "kernels/check.h"
#include "kernels/cpu/activations.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/gla_recurrent.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/rms_norm.h"
#include "kernels/cpu/short_conv.h"

namespace sluice {
namespace {

// Chunks whose scratch exists at a time: enough for all threads, few enough for the caches.
constexpr int64_t kMinBlockChunks = 8;
// Columns of the state that make a task of their own.
constexpr int64_t kTaskCols = 64;

const float* RowOf(const Activation& x, int64_t row) {
  return static_cast<const float*>(x.data) + row * PaddedCols(x.cols);
}

// One of q, k, v as it enters the mixer: its columns of the input projection, and its short
// convolution.
struct Stream {
  int64_t offset;        // column of the input projection
  const Vector* weight;  // of the convolution
  StatePartKind tail;
  int64_t tail_stride;
};

ShortConvArgs ConvArgs(const Stream& stream, int64_t channel, int64_t channels,
                       const ModelShape& shape, const MixArgs& args, int32_t slot, int64_t row,
                       StatePool* states) {
  ShortConvArgs conv;
  conv.weight = stream.weight->data + channel * shape.conv_size;
  conv.taps = shape.conv_size;
  conv.channels = channels;
  if (shape.conv_size > 1) conv.tail = states->ConvTail(slot, args.layer, stream.tail) + channel;
  conv.tail_stride = stream.tail_stride;
  conv.in = RowOf(args.in, row) + stream.offset + channel;
  conv.in_stride = PaddedCols(args.in.cols);
  return conv;
}

}  // namespace

absl::Status Mixer::Allocate(const ModelShape& shape, int32_t max_rows) {
  shape_ = shape;
  groups_ = shape.heads / shape.kv_heads;
  dv_padded_ = PaddedCols(shape.dv);
  q_scale_ = 1.0f / std::sqrt(static_cast<float>(shape.dk));

  const int64_t decode_floats = PaddedCols(groups_ * shape.dk) + PaddedCols(shape.dk) +
                                PaddedCols(shape.k_dim()) + kLineFloats +
                                (1 + groups_) * dv_padded_;
  thread_floats_ = PaddedCols(std::max(decode_floats, GlaChunkScratch(shape.dk, groups_)));
  absl::StatusOr<HostBuffer> buffer =
      HostBuffer::Allocate(pool_->threads(), thread_floats_ * sizeof(float), "mixer scratch");
  if (!buffer.ok()) return buffer.status();
  thread_scratch_ = std::move(*buffer);

  const auto take = [this](int64_t floats) {
    const int64_t begin = chunk_floats_;
    chunk_floats_ += PaddedCols(floats);
    return begin;
  };
  at_.q = take(kChunk * PaddedCols(shape.q_dim()));
  at_.k = take(kChunk * PaddedCols(shape.k_dim()));
  at_.alpha = take(kChunk * PaddedCols(shape.k_dim()));
  at_.v = take(kChunk * shape.kv_heads * dv_padded_);
  at_.o = take(kChunk * shape.heads * dv_padded_);
  at_.q_decayed = take(kChunk * shape.q_dim());
  at_.k_decayed = take(kChunk * shape.k_dim());
  at_.decay = take(shape.k_dim());
  at_.scores = take(kChunk * kChunk * shape.heads);
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
  pool_->ParallelFor(rows.num_decode * shape_.kv_heads, [&](int64_t task, int thread) {
    const int64_t row = task / shape_.kv_heads;
    DecodeHead(rows.decode[row], row, task % shape_.kv_heads, args,
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
      chunks_[num_chunks_++] = {&segment, begin, std::min(kChunk, segment.length - begin), row};
      ++pieces_[num_pieces_ - 1].chunks;
    }
    row += segment.length;
  }
  RunBlock(args);
}

void Mixer::DecodeHead(const DecodeRow& row, int64_t row_index, int64_t kv_head,
                       const MixArgs& args, float* scratch) {
  const ModelShape& s = shape_;
  const int64_t q_channels = groups_ * s.dk;
  float* q = scratch;
  float* k = q + PaddedCols(q_channels);
  float* v = k + PaddedCols(s.dk);
  float* o = v + dv_padded_;
  float* gate =
      o + groups_ * dv_padded_;  // all kv heads' columns, of which this head's are computed

  std::fill(v + s.dv, v + dv_padded_, 0.0f);
  const auto fetch = [&](const Stream& stream, int64_t channel, int64_t channels, float* to) {
    if (s.conv_size == 0) {
      std::memcpy(to, RowOf(args.in, row_index) + stream.offset + channel,
                  channels * sizeof(float));
      return;
    }
    const ShortConvArgs conv =
        ConvArgs(stream, channel, channels, s, args, row.slot, row_index, states_);
    ShortConvRow(conv, 0, to);
    ShortConvAdvance(conv, 1);
  };
  fetch({s.q_offset(), &args.conv_q, StatePartKind::kConvQ, s.q_dim()}, kv_head * q_channels,
        q_channels, q);
  fetch({s.k_offset(), &args.conv_k, StatePartKind::kConvK, s.k_dim()}, kv_head * s.dk, s.dk, k);
  fetch({s.v_offset(), &args.conv_v, StatePartKind::kConvV, s.v_dim()}, kv_head * s.dv, s.dv, v);
  ApplyFeatureMap(s.feature_map, q_scale_, q_channels, q);
  ApplyFeatureMap(s.feature_map, 1.0f, s.dk, k);

  GemmArgs gemm;
  gemm.a = RowOf(args.in, row_index) + s.gate_offset();
  gemm.m = 1;
  gemm.w = args.gate;
  gemm.c = gate;
  gemm.ldc = PaddedCols(s.k_dim());
  const int64_t first = kv_head * s.dk;
  GemmBlock(gemm, 0, 1, first / kPanelRows, PanelCount(first + s.dk));
  float* alpha = gate + first;
  GateDecay(args.gate_bias.data + first, s.clamp_log_gate, s.log_gate_min, s.dk, alpha);

  GlaRecurrent({.dk = s.dk,
                .dv_padded = dv_padded_,
                .groups = groups_,
                .q = q,
                .q_stride = s.dk,
                .k = k,
                .alpha = alpha,
                .v = v,
                .state = states_->Matrix(row.slot, args.layer, kv_head),
                .o = o});
  for (int64_t group = 0; group < groups_; ++group) {
    const int64_t column = (kv_head * groups_ + group) * s.dv;
    const float* g = s.output_gate ? RowOf(args.in, row_index) + s.g_offset() + column : nullptr;
    float* out =
        static_cast<float*>(args.out.data) + row_index * PaddedCols(args.out.cols) + column;
    GatedRmsNorm(o + group * dv_padded_, args.head_norm.data, g, s.dv, s.norm_eps, out);
  }
}

void Mixer::RunBlock(const MixArgs& args) {
  if (num_chunks_ == 0) return;
  pool_->ParallelFor(num_chunks_, [&](int64_t chunk, int) { PrepareChunk(chunk, args); });
  if (shape_.conv_size > 1) {
    for (int64_t i = 0; i < num_chunks_; ++i) {
      const Chunk& chunk = chunks_[i];
      if (chunk.begin + chunk.tokens == chunk.segment->length) AdvanceConvTails(chunk, args);
    }
  }
  pool_->ParallelFor(num_chunks_ * shape_.kv_heads, [&](int64_t task, int thread) {
    GlaChunkScores(HeadOfChunk(task / shape_.kv_heads, task % shape_.kv_heads),
                   thread_scratch_.floats() + thread * thread_floats_);
  });
  const int64_t col_tasks = (dv_padded_ + kTaskCols - 1) / kTaskCols;
  pool_->ParallelFor(num_pieces_ * shape_.kv_heads * col_tasks, [&](int64_t task, int) {
    const int64_t col = task % col_tasks * kTaskCols;
    const int64_t kv_head = task / col_tasks % shape_.kv_heads;
    const Piece& piece = pieces_[task / col_tasks / shape_.kv_heads];
    float* state = states_->Matrix(chunks_[piece.first_chunk].segment->slot, args.layer, kv_head);
    for (int64_t i = 0; i < piece.chunks; ++i) {
      GlaChunkState(HeadOfChunk(piece.first_chunk + i, kv_head), col,
                    std::min(col + kTaskCols, dv_padded_), state, dv_padded_);
    }
  });
  pool_->ParallelFor(num_chunks_, [&](int64_t chunk, int) { FinishChunk(chunk, args); });
  num_chunks_ = num_pieces_ = 0;
}

// Fills q, k, alpha and v of the chunk's scratch for all heads.
void Mixer::PrepareChunk(int64_t chunk_index, const MixArgs& args) {
  const ModelShape& s = shape_;
  const Chunk& chunk = chunks_[chunk_index];
  const int64_t q_cols = PaddedCols(s.q_dim()), k_cols = PaddedCols(s.k_dim());
  const int64_t v_cols = s.kv_heads * dv_padded_;
  float* q = ChunkBuffer(chunk_index, at_.q);
  float* k = ChunkBuffer(chunk_index, at_.k);
  float* alpha = ChunkBuffer(chunk_index, at_.alpha);
  float* v = ChunkBuffer(chunk_index, at_.v);

  const auto fetch = [&](const Stream& stream, int64_t channel, int64_t channels, int64_t t,
                         float* to) {
    if (s.conv_size == 0) {
      std::memcpy(to, RowOf(args.in, chunk.row + chunk.begin + t) + stream.offset + channel,
                  channels * sizeof(float));
    } else {
      ShortConvRow(
          ConvArgs(stream, channel, channels, s, args, chunk.segment->slot, chunk.row, states_),
          chunk.begin + t, to);
    }
  };
  for (int64_t t = 0; t < chunk.tokens; ++t) {
    fetch({s.q_offset(), &args.conv_q, StatePartKind::kConvQ, s.q_dim()}, 0, s.q_dim(), t,
          q + t * q_cols);
    ApplyFeatureMap(s.feature_map, q_scale_, s.q_dim(), q + t * q_cols);
    fetch({s.k_offset(), &args.conv_k, StatePartKind::kConvK, s.k_dim()}, 0, s.k_dim(), t,
          k + t * k_cols);
    ApplyFeatureMap(s.feature_map, 1.0f, s.k_dim(), k + t * k_cols);
    for (int64_t head = 0; head < s.kv_heads; ++head) {
      float* to = v + t * v_cols + head * dv_padded_;
      std::fill(to + s.dv, to + dv_padded_, 0.0f);
      fetch({s.v_offset(), &args.conv_v, StatePartKind::kConvV, s.v_dim()}, head * s.dv, s.dv, t,
            to);
    }
  }
  GemmArgs gemm;
  gemm.a = RowOf(args.in, chunk.row + chunk.begin) + s.gate_offset();
  gemm.lda = PaddedCols(args.in.cols);
  gemm.m = chunk.tokens;
  gemm.w = args.gate;
  gemm.c = alpha;
  gemm.ldc = k_cols;
  GemmBlock(gemm, 0, chunk.tokens, 0, GemmPanels(gemm));
  for (int64_t t = 0; t < chunk.tokens; ++t) {
    GateDecay(args.gate_bias.data, s.clamp_log_gate, s.log_gate_min, s.k_dim(), alpha + t * k_cols);
  }
  const int64_t padding = RoundUp(chunk.tokens, kSubChunk) - chunk.tokens;
  std::fill_n(q + chunk.tokens * q_cols, padding * q_cols, 0.0f);
  std::fill_n(k + chunk.tokens * k_cols, padding * k_cols, 0.0f);
  std::fill_n(alpha + chunk.tokens * k_cols, padding * k_cols, 1.0f);
  std::fill_n(v + chunk.tokens * v_cols, padding * v_cols, 0.0f);
}

void Mixer::AdvanceConvTails(const Chunk& chunk, const MixArgs& args) {
  const ModelShape& s = shape_;
  const auto advance = [&](const Stream& stream, int64_t channels) {
    ShortConvAdvance(
        ConvArgs(stream, 0, channels, s, args, chunk.segment->slot, chunk.row, states_),
        chunk.segment->length);
  };
  advance({s.q_offset(), &args.conv_q, StatePartKind::kConvQ, s.q_dim()}, s.q_dim());
  advance({s.k_offset(), &args.conv_k, StatePartKind::kConvK, s.k_dim()}, s.k_dim());
  advance({s.v_offset(), &args.conv_v, StatePartKind::kConvV, s.v_dim()}, s.v_dim());
}

GlaChunk Mixer::HeadOfChunk(int64_t chunk, int64_t kv_head) const {
  const ModelShape& s = shape_;
  const int64_t head = kv_head * groups_;
  GlaChunk c;
  c.tokens = chunks_[chunk].tokens;
  c.dk = s.dk;
  c.groups = groups_;
  c.q = ChunkBuffer(chunk, at_.q) + head * s.dk;
  c.q_stride = PaddedCols(s.q_dim());
  c.k = ChunkBuffer(chunk, at_.k) + kv_head * s.dk;
  c.alpha = ChunkBuffer(chunk, at_.alpha) + kv_head * s.dk;
  c.k_stride = PaddedCols(s.k_dim());
  c.v = ChunkBuffer(chunk, at_.v) + kv_head * dv_padded_;
  c.v_stride = s.kv_heads * dv_padded_;
  c.o = ChunkBuffer(chunk, at_.o) + head * kChunk * dv_padded_;
  c.o_stride = dv_padded_;
  c.q_decayed = ChunkBuffer(chunk, at_.q_decayed) + head * kChunk * s.dk;
  c.k_decayed = ChunkBuffer(chunk, at_.k_decayed) + kv_head * kChunk * s.dk;
  c.decay = ChunkBuffer(chunk, at_.decay) + kv_head * s.dk;
  c.scores = ChunkBuffer(chunk, at_.scores) + head * kChunk * kChunk;
  return c;
}

void Mixer::FinishChunk(int64_t chunk_index, const MixArgs& args) {
  const ModelShape& s = shape_;
  const Chunk& chunk = chunks_[chunk_index];
  for (int64_t t = 0; t < chunk.tokens; ++t) {
    const int64_t row = chunk.row + chunk.begin + t;
    float* out = static_cast<float*>(args.out.data) + row * PaddedCols(args.out.cols);
    const float* g = s.output_gate ? RowOf(args.in, row) + s.g_offset() : nullptr;
    for (int64_t head = 0; head < s.heads; ++head) {
      GatedRmsNorm(ChunkBuffer(chunk_index, at_.o) + (head * kChunk + t) * dv_padded_,
                   args.head_norm.data, g == nullptr ? nullptr : g + head * s.dv, s.dv, s.norm_eps,
                   out + head * s.dv);
    }
  }
}

}  // namespace sluice
