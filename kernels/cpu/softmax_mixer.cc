#include "kernels/cpu/softmax_mixer.h"

#include <algorithm>
#include <cstring>
#include <limits>
#include <utility>

#include "kernels/check.h"
#include "kernels/cpu/linear_back.h"
#include "kernels/mixer_math.h"

namespace sluice {
namespace {

// Query rows that one task takes through the keys: enough to pay for a block that was brought in.
constexpr int64_t kTileRows = 64;
// Positions whose keys one task of a decode row takes.
constexpr int64_t kSpan = 16 * kKeyBlock;
// Pieces whose scratch exists at a time, where the longest row needs no more.
constexpr int64_t kMinPieces = 64;

constexpr float kNothing = -std::numeric_limits<float>::infinity();

int64_t Groups(const MixerSpec& s) { return s.q_heads / s.k_heads; }
int64_t TileTokens(const MixerSpec& s) { return std::max<int64_t>(1, kTileRows / Groups(s)); }
int64_t MostRows(const MixerSpec& s) { return TileTokens(s) * Groups(s); }

// The first position that the token at `position` sees.
int64_t FirstSeen(const MixerSpec& s, int64_t position) {
  return s.window == 0 ? 0 : std::max<int64_t>(0, position - s.window + 1);
}

int64_t MostParts(const MixerSpec& s, int64_t max_tokens) {
  const int64_t tokens = s.window == 0 ? max_tokens : s.window;
  return tokens / kSpan + 2;
}

int64_t PieceFloats(const MixerSpec& s) {
  return s.q_heads * PaddedCols(s.dv) + 2 * PaddedCols(s.q_heads);
}

int64_t ThreadFloats(const MixerSpec& s) {
  const int64_t rows = MostRows(s);
  const int64_t tile = rows * PaddedCols(s.dv) + 2 * PaddedCols(rows) + SoftmaxScratch(rows, s.dk);
  return PaddedCols(std::max(tile, s.rope_dims));
}

// Norm, position and scale of q or k: x (heads, dk), in place.
void PlaceHeads(const MixerSpec& s, QkNorm norm, const Vector& weight,
                const mixer_math::Rotation* turns, float scale, int64_t heads, float* x) {
  const int64_t half = s.rope_dims / 2;
  const bool norms_heads = norm == QkNorm::kRms && s.qk_norm_span == NormSpan::kHead;
  if (norm == QkNorm::kRms && !norms_heads) {
    mixer_math::NormalizeRms(heads * s.dk, s.qk_norm_eps, weight.data, x);
  }
  for (int64_t head = 0; head < heads; ++head, x += s.dk) {
    if (norms_heads) mixer_math::NormalizeRms(s.dk, s.qk_norm_eps, weight.data, x);
    if (s.rope == Rope::kTable) {
      for (int64_t i = 0; i < half; ++i) mixer_math::Rotate(turns[i], x + i, x + half + i);
    }
    if (scale == 1.0f) continue;
    for (int64_t i = 0; i < s.dk; ++i) x[i] *= scale;
  }
}

}  // namespace

absl::Status SoftmaxMixer::Allocate(const ModelSpec& spec, int32_t max_rows, int64_t max_tokens) {
  int64_t most_rows = 0;
  int64_t pieces = kMinPieces;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& s) {
    if (s.core != Core::kSoftmax) return;
    thread_floats_ = std::max(thread_floats_, ThreadFloats(s));
    piece_floats_ = std::max(piece_floats_, PieceFloats(s));
    pieces = std::max(pieces, MostParts(s, max_tokens));
    most_rows = std::max(most_rows, MostRows(s));
  });
  if (thread_floats_ == 0) return absl::OkStatus();
  absl::StatusOr<HostBuffer> buffer =
      HostBuffer::Allocate(pool_->threads(), thread_floats_ * sizeof(float), "mixer scratch");
  if (!buffer.ok()) return buffer.status();
  thread_scratch_ = std::move(*buffer);
  buffer = HostBuffer::Allocate(pieces, piece_floats_ * sizeof(float), "mixer scratch");
  if (!buffer.ok()) return buffer.status();
  piece_scratch_ = std::move(*buffer);
  pieces_.resize(pieces);
  tiles_.reserve(max_rows);
  most_rows_ = most_rows;
  queries_.resize(most_rows * pool_->threads());
  return absl::OkStatus();
}

void SoftmaxMixer::Run(const StepRows& rows, const MixArgs& args) {
  const Layer layer = {&args, PaddedCols(args.in.cols), Groups(*args.spec)};
  RunDecode(layer, rows);
  RunPrompts(layer, rows);
}

void SoftmaxMixer::Front(const Layer& layer, int64_t row, int64_t position, float* scratch) const {
  const MixerSpec& s = *layer.args->spec;
  const MixerWeights& w = *layer.args->weights;
  auto* turns = reinterpret_cast<mixer_math::Rotation*>(scratch);  // (rope_dims / 2)
  if (s.rope == Rope::kTable) {
    const float at = static_cast<float>(position) / s.rope_divisor;
    for (int64_t i = 0; i < s.rope_dims / 2; ++i) {
      turns[i] = mixer_math::RotationAt(at * w.theta.data[i], 1);
      turns[i].cos *= s.rope_scale;
      turns[i].sin *= s.rope_scale;
    }
  }
  float* in = layer.In(row);
  PlaceHeads(s, s.q_norm, w.q_norm, turns, s.q_scale, s.q_heads, in + s.q.offset);
  PlaceHeads(s, s.k_norm, w.k_norm, turns, 1.0f, s.k_heads, in + s.k.offset);
}

void SoftmaxMixer::KeepRow(const Layer& layer, int32_t slot, int64_t row, int64_t position) const {
  const MixerSpec& s = *layer.args->spec;
  const float* in = layer.In(row);
  const TokenRows k = states_->Rows(slot, layer.args->layer, StatePartKind::kKeys);
  const TokenRows v = states_->Rows(slot, layer.args->layer, StatePartKind::kValues);
  std::memcpy(k.Row(position), in + s.k.offset, s.k.width * sizeof(float));
  std::memcpy(v.Row(position), in + s.v.offset, s.v.width * sizeof(float));
}

void SoftmaxMixer::Back(const Layer& layer, int64_t row) const {
  const MixerSpec& s = *layer.args->spec;
  BackRow back;
  back.in = layer.In(row);
  back.o = back.out = layer.Out(row);
  back.o_stride = s.dv;
  RunLinearBack(s, *layer.args->weights, back);
}

void SoftmaxMixer::Sources::Fill(int64_t first, int64_t begin, int64_t end, int64_t head,
                                 KeyBlock* block) const {
  for (int64_t s = begin; s < end; ++s) {
    const int64_t position = first + s;
    if (position < kept) {
      block->k[s] = k.Row(position) + head * spec->dk;
      block->v[s] = v.Row(position) + head * spec->dv;
    } else {
      const float* row = in + (position - kept) * stride;
      block->k[s] = row + spec->k.offset + head * spec->dk;
      block->v[s] = row + spec->v.offset + head * spec->dv;
    }
  }
}

SoftmaxMixer::Sources SoftmaxMixer::SourcesOf(const Layer& layer, int32_t slot, int64_t kept,
                                              int64_t row) const {
  Sources sources;
  sources.k = states_->Rows(slot, layer.args->layer, StatePartKind::kKeys);
  sources.v = states_->Rows(slot, layer.args->layer, StatePartKind::kValues);
  sources.kept = kept;
  sources.in = layer.In(row);
  sources.stride = layer.stride;
  sources.spec = layer.args->spec;
  return sources;
}

// ---- Decode rows ----

void SoftmaxMixer::RunDecode(const Layer& layer, const StepRows& rows) {
  pool_->ParallelFor(rows.num_decode, [&](int64_t row, int thread) {
    const DecodeRow& decode = rows.decode[row];
    Front(layer, row, decode.position, Scratch(thread));
    KeepRow(layer, decode.slot, row, decode.position);
  });
  for (int64_t row = 0; row < rows.num_decode; ++row) {
    const int64_t end = rows.decode[row].position + 1;
    const int64_t begin = FirstSeen(*layer.args->spec, end - 1);
    const int64_t parts = (end - 1) / kSpan - begin / kSpan + 1;
    if (num_pieces_ + parts > static_cast<int64_t>(pieces_.size())) RunPieces(layer);
    SLUICE_CHECK(parts <= static_cast<int64_t>(pieces_.size()));
    for (int64_t i = 0; i < parts; ++i) {
      const int64_t span = (begin / kSpan + i) * kSpan;
      pieces_[num_pieces_++] = {&rows.decode[row], row, std::max(begin, span),
                                std::min(end, span + kSpan), i == 0 ? parts : 0};
    }
  }
  RunPieces(layer);
}

void SoftmaxMixer::RunPieces(const Layer& layer) {
  const MixerSpec& s = *layer.args->spec;
  pool_->ParallelFor(num_pieces_ * s.k_heads, [&](int64_t task, int thread) {
    AttendPiece(layer, task / s.k_heads, task % s.k_heads, thread);
  });
  pool_->ParallelFor(num_pieces_, [&](int64_t piece, int) {
    const int64_t row = pieces_[piece].row, parts = pieces_[piece].parts;
    if (parts == 0) return;
    for (int64_t head = 0; head < s.q_heads; ++head) {
      const PieceView first = ViewOf(piece, s);
      MergeParts(parts, first.max + head, piece_floats_, first.sum + head, piece_floats_,
                 first.acc + head * PaddedCols(s.dv), piece_floats_, s.dv,
                 layer.Out(row) + head * s.dv);
    }
    Back(layer, row);
  });
  num_pieces_ = 0;
}

SoftmaxMixer::PieceView SoftmaxMixer::ViewOf(int64_t piece, const MixerSpec& s) const {
  float* begin = piece_scratch_.floats() + piece * piece_floats_;
  const int64_t acc = s.q_heads * PaddedCols(s.dv);
  return {begin, begin + acc, begin + acc + PaddedCols(s.q_heads)};
}

void SoftmaxMixer::AttendPiece(const Layer& layer, int64_t index, int64_t head, int thread) {
  const MixerSpec& s = *layer.args->spec;
  const Piece& piece = pieces_[index];
  const int64_t first_head = head * layer.groups;
  const int64_t dv_padded = PaddedCols(s.dv);
  const PieceView view = ViewOf(index, s);
  SoftmaxRows rows;
  rows.dk = s.dk;
  rows.dv = s.dv;
  rows.rows = layer.groups;
  rows.max = view.max + first_head;
  rows.sum = view.sum + first_head;
  rows.acc = view.acc + first_head * dv_padded;
  std::fill_n(rows.max, rows.rows, kNothing);
  std::fill_n(rows.sum, rows.rows, 0.0f);
  std::fill_n(rows.acc, rows.rows * dv_padded, 0.0f);
  QueryRow* queries = Queries(thread);
  rows.queries = queries;
  const float* q = layer.In(piece.row) + s.q.offset + first_head * s.dk;
  const Sources sources = SourcesOf(layer, piece.decode->slot, piece.end, piece.row);
  KeyBlock block;
  for (int64_t at = piece.begin / kKeyBlock * kKeyBlock; at < piece.end; at += kKeyBlock) {
    const int64_t begin = std::max<int64_t>(0, piece.begin - at);
    const int64_t end = std::min(kKeyBlock, piece.end - at);
    sources.Fill(at, begin, end, head, &block);
    for (int64_t g = 0; g < layer.groups; ++g) {
      queries[g] = {q + g * s.dk, static_cast<int32_t>(begin), static_cast<int32_t>(end)};
    }
    TakeBlock(rows, block, /*prompt=*/false, Scratch(thread));
  }
}

// ---- Prompts ----

void SoftmaxMixer::RunPrompts(const Layer& layer, const StepRows& rows) {
  const MixerSpec& s = *layer.args->spec;
  tiles_.clear();
  int64_t row = rows.num_decode;
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    const PromptSegment& segment = rows.prompts[i];
    for (int64_t begin = 0; begin < segment.length; begin += TileTokens(s)) {
      tiles_.push_back(
          {&segment, begin, std::min<int64_t>(TileTokens(s), segment.length - begin), row});
    }
    row += segment.length;
  }
  const auto tiles = static_cast<int64_t>(tiles_.size());
  const auto for_each_row = [&](auto visit) {
    pool_->ParallelFor(tiles, [&](int64_t task, int thread) {
      const Tile& tile = tiles_[task];
      for (int64_t t = tile.begin; t < tile.begin + tile.tokens; ++t) visit(tile, t, thread);
    });
  };
  for_each_row([&](const Tile& tile, int64_t t, int thread) {
    Front(layer, tile.row + t, tile.segment->position + t, Scratch(thread));
  });
  pool_->ParallelFor(tiles * s.k_heads, [&](int64_t task, int thread) {
    AttendTile(layer, tiles_[task / s.k_heads], task % s.k_heads, thread);
  });
  // Only now: a ring's rows were still to be read.
  for_each_row([&](const Tile& tile, int64_t t, int) {
    const PromptSegment& segment = *tile.segment;
    if (s.window == 0 || t + s.window >= segment.length) {
      KeepRow(layer, segment.slot, tile.row + t, segment.position + t);
    }
    Back(layer, tile.row + t);
  });
}

void SoftmaxMixer::AttendTile(const Layer& layer, const Tile& tile, int64_t head, int thread) {
  const MixerSpec& s = *layer.args->spec;
  const int64_t groups = layer.groups, dv_padded = PaddedCols(s.dv);
  const int64_t first = tile.segment->position + tile.begin;  // of the tile's tokens
  SoftmaxRows rows;
  rows.dk = s.dk;
  rows.dv = s.dv;
  rows.rows = tile.tokens * groups;
  QueryRow* queries = Queries(thread);
  rows.queries = queries;
  rows.acc = Scratch(thread);
  rows.max = rows.acc + rows.rows * dv_padded;
  rows.sum = rows.max + PaddedCols(rows.rows);
  float* scratch = rows.sum + PaddedCols(rows.rows);
  std::fill_n(rows.acc, rows.rows * dv_padded, 0.0f);
  std::fill_n(rows.max, rows.rows, kNothing);
  std::fill_n(rows.sum, rows.rows, 0.0f);
  const Sources sources = SourcesOf(layer, tile.segment->slot, tile.segment->position, tile.row);
  const int64_t seen = FirstSeen(s, first), end = first + tile.tokens;
  KeyBlock block;
  for (int64_t at = seen / kKeyBlock * kKeyBlock; at < end; at += kKeyBlock) {
    const auto in_block = [at](int64_t position) {
      return static_cast<int32_t>(std::clamp<int64_t>(position - at, 0, kKeyBlock));
    };
    for (int64_t t = 0; t < tile.tokens; ++t) {
      const float* q = layer.In(tile.row + tile.begin + t) + s.q.offset + head * groups * s.dk;
      const QueryRow row = {q, in_block(FirstSeen(s, first + t)), in_block(first + t + 1)};
      for (int64_t g = 0; g < groups; ++g) {
        queries[t * groups + g] = row;
        queries[t * groups + g].q = q + g * s.dk;
      }
    }
    sources.Fill(at, in_block(seen), in_block(end), head, &block);
    TakeBlock(rows, block, /*prompt=*/true, scratch);
  }
  for (int64_t r = 0; r < rows.rows; ++r) {
    float* o = layer.Out(tile.row + tile.begin + r / groups) + (head * groups + r % groups) * s.dv;
    MergeParts(1, rows.max + r, 0, rows.sum + r, 0, rows.acc + r * dv_padded, 0, s.dv, o);
  }
}

}  // namespace sluice
