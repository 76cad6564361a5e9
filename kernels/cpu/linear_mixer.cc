#include "kernels/cpu/linear_mixer.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/cores.h"
#include "kernels/cpu/core_delta.h"
#include "kernels/cpu/linear_back.h"
#include "kernels/cpu/linear_recurrent.h"

namespace sluice {
namespace {

// Chunks whose scratch exists at a time: enough for all threads, few enough for the caches.
constexpr int64_t kMinBlockChunks = 8;
// Decode rows whose fronts or backs make a task, where there are enough.
constexpr int64_t kTaskRows = 8;
// Columns of the state that make a task of their own.
constexpr int64_t kTaskCols = 64;

int64_t DecayCols(const MixerSpec& spec) {
  switch (spec.decay) {
    case Decay::kNone:
    case Decay::kConst:
      return 0;
    case Decay::kHead:
      return spec.state_heads;
    case Decay::kKey:
      return spec.state_heads * spec.dk;
  }
  return 0;
}

// Query heads that read one state, where several do.
int64_t Queries(const MixerSpec& spec) { return spec.heads() / spec.state_heads; }

// Rows that read one state at a token of a chunk: its queries, and the delta rule's key.
int64_t Readers(const MixerSpec& spec) {
  return Queries(spec) + (spec.core == Core::kDelta ? 1 : 0);
}

// State heads that share both their query head and their key head.
int64_t StatesPerSet(const MixerSpec& spec) {
  if (spec.decay == Decay::kKey) return 1;
  return spec.state_heads / std::max(std::min(spec.q_heads, spec.state_heads), spec.k_heads);
}

// First query head of a state head.
int64_t QueryHead(const MixerSpec& spec, int64_t state_head) {
  return spec.q_heads >= spec.state_heads ? state_head * Queries(spec)
                                          : state_head / (spec.state_heads / spec.q_heads);
}
int64_t KeyHead(const MixerSpec& spec, int64_t state_head) {
  return state_head / (spec.state_heads / spec.k_heads);
}
int64_t ValueHead(const MixerSpec& spec, int64_t state_head) {
  return state_head / (spec.state_heads / spec.v_heads);
}

// The delta rule reads the state by its key as by its query: both become query heads, copied into
// `scratch`. Returns what is left of it.
float* PairQueryWithKey(LinearChunk* c, float* scratch) {
  const int64_t rows = RoundUp(c->tokens, kSubChunk);
  for (int64_t t = 0; t < rows; ++t) {
    float* pair = scratch + t * 2 * c->dk;
    std::copy_n(c->q + t * c->q_stride, c->dk, pair);
    std::copy_n(c->k + t * c->k_stride, c->dk, pair + c->dk);
  }
  c->q = scratch;
  c->q_stride = 2 * c->dk;
  return scratch + kChunk * 2 * c->dk;
}

const float* InRow(const MixArgs& args, int64_t row) {
  return static_cast<const float*>(args.in.data) + row * PaddedCols(args.in.cols);
}

}  // namespace

LinearMixer::Layout LinearMixer::MakeLayout(const MixerSpec& s) {
  Layout at;
  const int64_t dv_padded = PaddedCols(s.dv);
  at.q_cols = PaddedCols(s.q_heads * s.dk);
  at.k_cols = PaddedCols(s.k_heads * s.dk);
  at.v_cols = s.v_heads * dv_padded;
  at.decay_cols = PaddedCols(DecayCols(s));
  at.beta_cols = s.core == Core::kDelta ? PaddedCols(s.state_heads) : 0;
  at.skip_cols = s.skip == Skip::kNone ? 0 : PaddedCols(s.v_heads * s.dv);
  const auto take = [&at](int64_t floats) {
    const int64_t begin = at.floats;
    at.floats += PaddedCols(floats);
    return begin;
  };
  at.q = take(kChunk * at.q_cols);
  at.k = take(kChunk * at.k_cols);
  at.v = take(kChunk * at.v_cols);
  at.decay = take(kChunk * at.decay_cols);
  at.skip = take(kChunk * at.skip_cols);
  at.beta = take(kChunk * at.beta_cols);
  at.gate_cols = s.low_rank_gate ? PaddedCols(s.out_dim()) : 0;
  at.gate = take(kChunk * at.gate_cols);
  at.o = take(kChunk * s.heads() * dv_padded);
  at.den = take(s.normaliser ? kChunk * s.heads() : 0);
  const int64_t readers = s.state_heads * Readers(s);
  at.q_decayed = take(kChunk * readers * s.dk);
  at.k_decayed = take(kChunk * s.state_heads * s.dk);
  at.whole_decay = take(s.state_heads * s.dk);
  at.scores = take(kChunk * kChunk * readers);
  return at;
}

int64_t LinearMixer::ThreadFloats(const MixerSpec& s) {
  int64_t scores =
      s.decay == Decay::kKey ? LinearChunkScratch(s.dk, Readers(s)) : ScalarChunkScratch(s.dk);
  if (s.core == Core::kDelta) scores += kChunk * 2 * s.dk;
  const int64_t decode = Queries(s) * PaddedCols(s.dv) + Queries(s);
  return PaddedCols(std::max({LinearFrontScratch(s), scores, decode}));
}

absl::Status LinearMixer::Allocate(const ModelSpec& spec, int32_t max_rows) {
  ForEachMixer(spec, [&](int64_t, const MixerSpec& mixer) {
    if (mixer.core == Core::kSoftmax || mixer.core == Core::kShortConv || FusedGla(mixer)) return;
    thread_floats_ = std::max(thread_floats_, ThreadFloats(mixer));
    chunk_floats_ = std::max(chunk_floats_, MakeLayout(mixer).floats);
  });
  if (chunk_floats_ == 0) return absl::OkStatus();
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

void LinearMixer::Run(const StepRows& rows, const MixArgs& args) {
  at_ = MakeLayout(*args.spec);
  num_chunks_ = num_pieces_ = 0;
  const auto full = [this] { return num_chunks_ == static_cast<int64_t>(chunks_.size()); };
  for (int64_t row = 0; row < rows.num_decode; row += kChunk) {
    if (full()) RunDecodeBlock(args);
    chunks_[num_chunks_++] = {.decode = rows.decode + row,
                              .tokens = std::min<int64_t>(kChunk, rows.num_decode - row),
                              .row = row};
  }
  RunDecodeBlock(args);
  int64_t row = rows.num_decode;
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    const PromptSegment& segment = rows.prompts[i];
    SLUICE_CHECK(segment.start % kChunk == 0);
    for (int64_t begin = 0; begin < segment.length; begin += kChunk) {
      if (full()) RunPromptBlock(args);
      if (begin == 0 || num_chunks_ == 0) pieces_[num_pieces_++] = {num_chunks_, 0};
      chunks_[num_chunks_++] = {.segment = &segment,
                                .begin = begin,
                                .tokens = std::min(kChunk, segment.length - begin),
                                .row = row + begin};
      ++pieces_[num_pieces_ - 1].chunks;
    }
    row += segment.length;
  }
  RunPromptBlock(args);
}

FrontRow LinearMixer::RowOf(const Chunk& chunk, int64_t t, const MixArgs& args) const {
  FrontRow row;
  row.in_stride = PaddedCols(args.in.cols);
  if (chunk.segment == nullptr) {
    row.slot = chunk.decode[t].slot;
    row.position = chunk.decode[t].position;
    row.in = InRow(args, chunk.row + t);
  } else {
    row.slot = chunk.segment->slot;
    row.row = chunk.begin + t;
    row.position = chunk.segment->position + row.row;
    row.in = InRow(args, chunk.row - chunk.begin);
  }
  return row;
}

void LinearMixer::Front(int64_t chunk, int64_t begin, int64_t end, const MixArgs& args,
                        float* scratch) {
  ProjectGate(*args.spec, *args.weights, InRow(args, chunks_[chunk].row + begin),
              PaddedCols(args.in.cols), end - begin, at_.decay_cols,
              Buffer(chunk, at_.decay) + begin * at_.decay_cols);
  for (int64_t t = begin; t < end; ++t) {
    FrontOutput out;
    out.q = Buffer(chunk, at_.q) + t * at_.q_cols;
    out.k = Buffer(chunk, at_.k) + t * at_.k_cols;
    out.v = Buffer(chunk, at_.v) + t * at_.v_cols;
    out.decay = Buffer(chunk, at_.decay) + t * at_.decay_cols;
    out.skip = Buffer(chunk, at_.skip) + t * at_.skip_cols;
    out.beta = Buffer(chunk, at_.beta) + t * at_.beta_cols;
    RunLinearFront(*args.spec, *args.weights, args.layer, RowOf(chunks_[chunk], t, args), states_,
                   scratch, out);
  }
}

void LinearMixer::Back(int64_t chunk, int64_t begin, int64_t end, const MixArgs& args) {
  const MixerSpec& s = *args.spec;
  const int64_t dv_padded = PaddedCols(s.dv);
  float* gates = Buffer(chunk, at_.gate);
  if (s.low_rank_gate) {
    ProjectOutGate(s, *args.weights, InRow(args, chunks_[chunk].row + begin),
                   PaddedCols(args.in.cols), end - begin, at_.gate_cols,
                   gates + begin * at_.gate_cols);
  }
  for (int64_t t = begin; t < end; ++t) {
    const int64_t row = chunks_[chunk].row + t;
    BackRow back;
    back.in = InRow(args, row);
    if (s.low_rank_gate) back.gate = gates + t * at_.gate_cols;
    back.o = Buffer(chunk, at_.o) + t * dv_padded;
    back.o_stride = kChunk * dv_padded;
    back.den = Buffer(chunk, at_.den) + t;
    back.den_stride = kChunk;
    back.skip = Buffer(chunk, at_.skip) + t * at_.skip_cols;
    back.out = static_cast<float*>(args.out.data) + row * PaddedCols(args.out.cols);
    RunLinearBack(s, *args.weights, back);
  }
}

// ---- Decode rows ----

void LinearMixer::RunDecodeBlock(const MixArgs& args) {
  if (num_chunks_ == 0) return;
  const MixerSpec& spec = *args.spec;
  const int64_t rows = (num_chunks_ - 1) * kChunk + chunks_[num_chunks_ - 1].tokens;
  // Rows of one task share what it reads of the gates' matrices; how many there are changes no bit.
  const int64_t group = std::clamp<int64_t>(rows / (2 * pool_->threads()), 1, kTaskRows);
  const auto for_rows = [&](const auto& run) {
    pool_->ParallelFor((rows + group - 1) / group, [&](int64_t task, int thread) {
      const int64_t end = std::min((task + 1) * group, rows);
      for (int64_t row = task * group; row < end;) {
        const int64_t t = row % kChunk, count = std::min(end - row, kChunk - t);
        run(row / kChunk, t, t + count, thread);
        row += count;
      }
    });
  };
  for_rows([&](int64_t chunk, int64_t begin, int64_t end, int thread) {
    Front(chunk, begin, end, args, Scratch(thread));
    for (int64_t t = begin; t < end; ++t) {
      AdvanceTails(spec, args.layer, RowOf(chunks_[chunk], t, args), 1, states_);
    }
  });
  pool_->ParallelFor(rows * spec.state_heads, [&](int64_t task, int thread) {
    const int64_t row = task / spec.state_heads;
    DecodeHead(args, row / kChunk, row % kChunk, task % spec.state_heads, Scratch(thread));
  });
  for_rows([&](int64_t chunk, int64_t begin, int64_t end, int) { Back(chunk, begin, end, args); });
  num_chunks_ = 0;
}

void LinearMixer::DecodeHead(const MixArgs& args, int64_t chunk, int64_t t, int64_t head,
                             float* scratch) {
  const MixerSpec& s = *args.spec;
  const DecodeRow& row = chunks_[chunk].decode[t];
  const int64_t dv_padded = PaddedCols(s.dv), dk_padded = PaddedCols(s.dk);
  const int64_t queries = Queries(s);
  float* k = Buffer(chunk, at_.k) + t * at_.k_cols + KeyHead(s, head) * s.dk;
  float* decay = Buffer(chunk, at_.decay) + t * at_.decay_cols;
  if (s.gate == GateMap::kLightNet) {
    float* log_sum = states_->Part(row.slot, args.layer, StatePartKind::kLogSum) + head * dk_padded;
    LightNetScan(1, 0, s.dk, row.position == 0, k, 0, decay + head * s.dk, 0, log_sum);
  }
  LinearRecurrentArgs step;
  step.dk = s.dk;
  step.dv_padded = dv_padded;
  step.groups = queries;
  step.q = Buffer(chunk, at_.q) + t * at_.q_cols + QueryHead(s, head) * s.dk;
  step.q_stride = s.dk;
  step.k = k;
  step.v = Buffer(chunk, at_.v) + t * at_.v_cols + ValueHead(s, head) * dv_padded;
  step.state =
      states_->Part(row.slot, args.layer, StatePartKind::kMatrix) + head * s.dk * dv_padded;
  step.o = scratch;
  float* den = scratch + queries * dv_padded;
  if (s.decay == Decay::kKey) step.alpha = decay + head * s.dk;
  float log_decay = 0.0f;
  if (s.decay == Decay::kConst) log_decay = args.weights->log_decay.data[head];
  if (s.decay == Decay::kHead) log_decay = decay[head];
  if (s.core == Core::kDelta) {
    DeltaRecurrent(step, log_decay, Buffer(chunk, at_.beta)[t * at_.beta_cols + head]);
  } else if (s.decay == Decay::kKey) {
    LinearRecurrent(step);
  } else {
    ScalarRecurrent(step, log_decay);
  }
  if (s.normaliser) {
    float* z = states_->Part(row.slot, args.layer, StatePartKind::kNormaliser) + head * dk_padded;
    NormaliserRecurrent(step, log_decay, z, den);
  }
  for (int64_t query = 0; query < queries; ++query) {
    const int64_t at = (head * queries + query) * kChunk + t;
    std::copy_n(step.o + query * dv_padded, dv_padded, Buffer(chunk, at_.o) + at * dv_padded);
    if (s.normaliser) Buffer(chunk, at_.den)[at] = den[query];
  }
}

// ---- Prompts ----

void LinearMixer::RunPromptBlock(const MixArgs& args) {
  if (num_chunks_ == 0) return;
  const MixerSpec& spec = *args.spec;
  pool_->ParallelFor(num_chunks_, [&](int64_t chunk, int thread) {
    Front(chunk, 0, chunks_[chunk].tokens, args, Scratch(thread));
    PadChunk(chunk, spec);
  });
  for (int64_t i = 0; i < num_chunks_; ++i) {
    const Chunk& chunk = chunks_[i];
    if (chunk.begin + chunk.tokens < chunk.segment->length) continue;
    AdvanceTails(spec, args.layer, RowOf(chunk, -chunk.begin, args), chunk.segment->length,
                 states_);
  }
  if (spec.gate == GateMap::kLightNet) {
    pool_->ParallelFor(num_pieces_ * spec.state_heads, [&](int64_t task, int) {
      ScanLightNet(args, pieces_[task / spec.state_heads], task % spec.state_heads);
    });
  }
  const int64_t sets = spec.state_heads / StatesPerSet(spec);
  pool_->ParallelFor(num_chunks_ * sets, [&](int64_t task, int thread) {
    Scores(args, task / sets, task % sets, Scratch(thread));
  });
  const int64_t dv_padded = PaddedCols(spec.dv);
  const int64_t col_tasks = (dv_padded + kTaskCols - 1) / kTaskCols;
  pool_->ParallelFor(num_pieces_ * spec.state_heads * col_tasks, [&](int64_t task, int) {
    const int64_t col = task % col_tasks * kTaskCols;
    AdvanceState(args, pieces_[task / col_tasks / spec.state_heads],
                 task / col_tasks % spec.state_heads, col, std::min(col + kTaskCols, dv_padded));
  });
  pool_->ParallelFor(num_chunks_,
                     [&](int64_t chunk, int) { Back(chunk, 0, chunks_[chunk].tokens, args); });
  num_chunks_ = num_pieces_ = 0;
}

void LinearMixer::AdvanceState(const MixArgs& args, const Piece& piece, int64_t head, int64_t col,
                               int64_t col_end) {
  const MixerSpec& s = *args.spec;
  const int64_t dv_padded = PaddedCols(s.dv);
  const int32_t slot = chunks_[piece.first_chunk].segment->slot;
  float* state = states_->Part(slot, args.layer, StatePartKind::kMatrix) + head * s.dk * dv_padded;
  for (int64_t i = 0; i < piece.chunks; ++i) {
    const int64_t chunk = piece.first_chunk + i;
    const LinearChunk c = StateOfChunk(s, chunk, head);
    if (s.core == Core::kDelta) {
      DeltaChunkState(c, Buffer(chunk, at_.beta) + head, at_.beta_cols, col, col_end, state,
                      dv_padded);
    } else {
      LinearChunkState(c, col, col_end, state, dv_padded);
    }
    if (!s.normaliser || col > 0) continue;
    float* z =
        states_->Part(slot, args.layer, StatePartKind::kNormaliser) + head * PaddedCols(s.dk);
    NormaliserChunk(c, z, Buffer(chunk, at_.den) + head * Queries(s) * kChunk);
  }
}

// Rows past the last valid token change nothing, up to a whole sub-chunk.
void LinearMixer::PadChunk(int64_t chunk, const MixerSpec& spec) {
  const int64_t tokens = chunks_[chunk].tokens;
  const int64_t padding = RoundUp(tokens, kSubChunk) - tokens;
  std::fill_n(Buffer(chunk, at_.q) + tokens * at_.q_cols, padding * at_.q_cols, 0.0f);
  std::fill_n(Buffer(chunk, at_.k) + tokens * at_.k_cols, padding * at_.k_cols, 0.0f);
  std::fill_n(Buffer(chunk, at_.v) + tokens * at_.v_cols, padding * at_.v_cols, 0.0f);
  std::fill_n(Buffer(chunk, at_.beta) + tokens * at_.beta_cols, padding * at_.beta_cols, 0.0f);
  if (spec.decay != Decay::kKey) return;
  std::fill_n(Buffer(chunk, at_.decay) + tokens * at_.decay_cols, padding * at_.decay_cols, 1.0f);
}

void LinearMixer::ScanLightNet(const MixArgs& args, const Piece& piece, int64_t head) {
  const MixerSpec& s = *args.spec;
  float* log_sum =
      states_->Part(chunks_[piece.first_chunk].segment->slot, args.layer, StatePartKind::kLogSum) +
      head * PaddedCols(s.dk);
  for (int64_t i = 0; i < piece.chunks; ++i) {
    const int64_t index = piece.first_chunk + i;
    const Chunk& chunk = chunks_[index];
    LightNetScan(chunk.tokens, 0, s.dk, chunk.segment->position + chunk.begin == 0,
                 Buffer(index, at_.k) + head * s.dk, at_.k_cols,
                 Buffer(index, at_.decay) + head * s.dk, at_.decay_cols, log_sum);
  }
}

void LinearMixer::Scores(const MixArgs& args, int64_t chunk, int64_t set, float* scratch) {
  const MixerSpec& s = *args.spec;
  const int64_t states = StatesPerSet(s);
  const int64_t head = set * states;
  LinearChunk first = StateOfChunk(s, chunk, head);
  if (s.core == Core::kDelta) scratch = PairQueryWithKey(&first, scratch);
  if (s.decay == Decay::kKey) {
    LinearChunkScores(first, scratch);
    return;
  }
  ScalarChunk c;
  c.tokens = first.tokens;
  c.dk = s.dk;
  c.queries = first.groups;
  c.states = states;
  c.q = first.q;
  c.q_stride = first.q_stride;
  c.k = first.k;
  c.k_stride = first.k_stride;
  if (s.decay == Decay::kConst) c.log_decay = args.weights->log_decay.data + head;
  if (s.decay == Decay::kHead) {
    c.log_decay = Buffer(chunk, at_.decay) + head;
    c.decay_stride = at_.decay_cols;
  }
  c.q_decayed = first.q_decayed;
  c.k_decayed = first.k_decayed;
  c.decay = first.decay;
  c.scores = first.scores;
  ScalarChunkScores(c, scratch);
}

LinearChunk LinearMixer::StateOfChunk(const MixerSpec& s, int64_t chunk, int64_t head) const {
  const int64_t dv_padded = PaddedCols(s.dv);
  const int64_t first = head * Readers(s);
  LinearChunk c;
  c.tokens = chunks_[chunk].tokens;
  c.dk = s.dk;
  c.groups = Readers(s);
  c.q = Buffer(chunk, at_.q) + QueryHead(s, head) * s.dk;
  c.q_stride = at_.q_cols;
  c.k = Buffer(chunk, at_.k) + KeyHead(s, head) * s.dk;
  c.k_stride = at_.k_cols;
  if (s.decay == Decay::kKey) {
    c.alpha = Buffer(chunk, at_.decay) + head * s.dk;
    c.alpha_stride = at_.decay_cols;
  }
  c.v = Buffer(chunk, at_.v) + ValueHead(s, head) * dv_padded;
  c.v_stride = at_.v_cols;
  c.o = Buffer(chunk, at_.o) + head * Queries(s) * kChunk * dv_padded;
  c.o_stride = dv_padded;
  c.q_decayed = Buffer(chunk, at_.q_decayed) + first * kChunk * s.dk;
  c.k_decayed = Buffer(chunk, at_.k_decayed) + head * kChunk * s.dk;
  c.decay = Buffer(chunk, at_.whole_decay) + head * s.dk;
  c.scores = Buffer(chunk, at_.scores) + first * kChunk * kChunk;
  return c;
}

}  // namespace sluice
