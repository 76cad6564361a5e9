// Takes the state through the chunks of a span where a state's key channels share their decay:
//   o_t = 2^(G_t) S^T q_t + sum_{s <= t} scores[t, s] v_s
//   S  <- 2^(G_end) S + sum_s k_s (2^(G_end - G_s) scale_s v_s)^T
// Keys and queries come as front left them: decays scale sums in registers and values on their way
// to the last product, so that heads which share queries and keys share their tiles too.
//
// A warpgroup holds 64 columns of v; a block is two of one state, or of two states with the same
// query and key, one each. The state lies transposed, (v, dk), in fp32 accumulators: rounded to
// bf16 pairs it is the left operand of the first product as it lies, and the right place for the
// sums of the last. Chunks pass through stages of shared memory in swizzled tiles. On Hopper a
// thread of its own keeps bulk copies on their way, and the warpgroups wait for nothing but their
// stage, so that one's sums hide behind the other's products; elsewhere all threads copy, into one
// stage.
#include "kernels/cuda/chunk_tiles.cuh"
#include "kernels/cuda/linear.h"
#include "kernels/cuda/tensor_map.h"
#include "kernels/cuda/tma.cuh"
#include "kernels/cuda/wgmma.cuh"

namespace sluice::cuda {
namespace {

constexpr int kMostGroups = 2;  // warpgroups of a block
constexpr int kMostStages = 4;
constexpr int kDecayBytes = 2 * kChunk * 4;  // of a chunk and state

// What a launch computes. Keys past kPassKeys take further passes over the chunks, which leave the
// sums of their outputs for the next.
enum class Pass { kSums, kOnly, kFirst, kMiddle, kLast };
constexpr bool Queries(Pass pass) { return pass != Pass::kSums; }
constexpr bool TakesScores(Pass pass) { return pass == Pass::kOnly || pass == Pass::kFirst; }
constexpr bool AddsPartial(Pass pass) { return pass == Pass::kMiddle || pass == Pass::kLast; }
constexpr bool LeavesPartial(Pass pass) { return pass == Pass::kFirst || pass == Pass::kMiddle; }

struct Params {
  int first_chunk;  // the buffers' chunk 0, of the step
  int first_span;
  int first_key;  // of this pass
  int member;     // of the output heads that share a state, which take turns: the last replaces it
  int groups;     // warpgroups of the block
  int states;     // of the block: 1, or one a warpgroup
  int stages;
  bf16* out;
  int64_t out_stride;
};

struct Maps {  // of the tiles that Hopper copies
  CUtensorMap q, k, v, scores;
};

struct Stage {  // offsets in bytes; a tile of v a warpgroup, scores and decays a state
  int k, scores, v, decays, bytes;
};
template <int kKeys, Pass kPass>
__host__ __device__ __forceinline__ Stage StageLayout(int groups, int states) {
  constexpr int kKeyBytes = kKeys / 64 * kTileBytes;
  Stage s;
  s.k = Queries(kPass) ? kKeyBytes : 0;
  s.scores = s.k + kKeyBytes;
  s.v = s.scores + (TakesScores(kPass) ? states * kTileBytes : 0);
  s.decays = s.v + groups * kTileBytes;
  s.bytes = s.decays + 1024;
  return s;
}

// What a block, and a warpgroup of it, works on.
struct Work {
  SpanMeta span;
  int row, last_tokens;           // of the span's first chunk; of its last
  int group;                      // the thread's warpgroup
  int state, out_head, column;    // the warpgroup's: state, output head, first column of v
  int of_block;                   // its state, of the block's
  int first_state, first_column;  // the block's

  __device__ __forceinline__ Work(const LinearArgs& a, const Params& p) {
    span = MetaArray<SpanMeta>(a.meta, a.meta->spans)[p.first_span + blockIdx.z];
    const ChunkMeta* chunks = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + span.chunk;
    row = chunks[0].row;
    last_tokens = chunks[span.chunks - 1].tokens;
    group = threadIdx.x / kGroupThreads;
    of_block = p.states > 1 ? group : 0;
    first_state = blockIdx.y * p.states;
    first_column = blockIdx.x * p.groups * 64;
    state = first_state + of_block;
    out_head = state * (a.out_heads / a.state_heads) + p.member;
    column = first_column + (p.states > 1 ? 0 : group * 64);
  }
  // Valid ones of chunk c, of the span.
  __device__ __forceinline__ int Tokens(int c) const {
    return c == span.chunks - 1 ? last_tokens : kChunk;
  }
  __device__ __forceinline__ int64_t LocalChunk(const Params& p, int c) const {
    return span.chunk - p.first_chunk + c;
  }
};

__device__ __forceinline__ int QueryHead(const LinearArgs& a, int out_head) {
  return out_head / (a.out_heads / a.q_heads);
}
__device__ __forceinline__ int KeyHead(const LinearArgs& a, int state) {
  return state / (a.state_heads / a.k_heads);
}
__device__ __forceinline__ int ValueHead(const LinearArgs& a, int state) {
  return state / (a.state_heads / a.v_heads);
}
__device__ __forceinline__ const float* DecaysOf(const LinearArgs& a, const LinearBuffers& b,
                                                 const Work& w, const Params& p, int c) {
  return b.decays + (w.LocalChunk(p, c) * a.state_heads + w.first_state) * 2 * kChunk;
}

#if SLUICE_HOPPER

__device__ __forceinline__ void SyncConsumers(int groups) {
  asm volatile("bar.sync 1, %0;" ::"r"(groups * kGroupThreads) : "memory");
}

// Rows of `tiles` tiles from `tokens` on become zeros, by all consumers: they are other tokens'.
__device__ __forceinline__ void ClearRows(char* tile, int tiles, int tokens, int groups) {
  const int rows = (kChunk - tokens) * 8;
  for (int i = threadIdx.x; i < tiles * rows; i += groups * kGroupThreads) {
    *reinterpret_cast<uint4*>(tile + i / rows * kTileBytes + tokens * 128 + i % rows * 16) =
        make_uint4(0, 0, 0, 0);
  }
}

// These change how many registers a thread of the calling warpgroup has from now on.
template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {
  asm volatile("setmaxnreg.inc.sync.aligned.u32 %0;" ::"n"(kRegisters));
}
template <int kRegisters>
__device__ __forceinline__ void LeaveRegisters() {
  asm volatile("setmaxnreg.dec.sync.aligned.u32 %0;" ::"n"(kRegisters));
}

// Stages that one thread of a warpgroup of its own fills by bulk copies.
template <int kKeys, Pass kPass>
class Stages {
 public:
  static constexpr int kExtraThreads = kGroupThreads;

  __device__ Stages(char* shared, const Params& p)
      : shared_(shared), at_(StageLayout<kKeys, kPass>(p.groups, p.states)), count_(p.stages) {
    __shared__ uint64_t barriers[2 * kMostStages];
    full_ = SharedAddress(barriers);
    empty_ = full_ + kMostStages * 8;
    if (threadIdx.x == 0) {
      for (int i = 0; i < count_; ++i) {
        InitBarrier(full_ + i * 8, 1);
        InitBarrier(empty_ + i * 8, p.groups * kGroupThreads);
      }
      FenceBarrierInit();
    }
    __syncthreads();
  }

  // True in the warpgroup that fills stages and does nothing else.
  __device__ __forceinline__ bool Fills(const Params& p) const {
    return static_cast<int>(threadIdx.x) >= p.groups * kGroupThreads;
  }
  __device__ __forceinline__ void Fill(const LinearArgs& a, const LinearBuffers& b,
                                       const Maps& maps, const Params& p, const Work& w) {
    if (threadIdx.x % kGroupThreads != 0) return;
    for (int c = 0; c < w.span.chunks; ++c) {
      if (c >= count_) WaitBarrier(empty_ + stage_ * 8, parity_ ^ 1);
      Copy(a, b, maps, p, w, c);
      Advance();
    }
  }

  // Waits for the stage of chunk c, the next one. Past its tokens keys and values are zeros.
  __device__ __forceinline__ char* Wait(const LinearArgs&, const LinearBuffers&, const Params& p,
                                        const Work& w, int c) {
    const int tokens = w.Tokens(c);
    WaitBarrier(full_ + stage_ * 8, parity_);
    char* stage = shared_ + stage_ * at_.bytes;
    if (tokens < kChunk) {
      ClearRows(stage + at_.k, kKeys / 64, tokens, p.groups);
      ClearRows(stage + at_.v, p.groups, tokens, p.groups);
      FenceForWgmma();
      SyncConsumers(p.groups);
    }
    return stage;
  }
  // The thread has read all it needs of the stage. Each arrives for itself: the copy that follows
  // is then ordered after the reads of all, without a barrier among them.
  __device__ __forceinline__ void Release() {
    ArriveAt(empty_ + stage_ * 8);
    Advance();
  }
  __device__ __forceinline__ const Stage& at() const { return at_; }

 private:
  __device__ __forceinline__ void Advance() {
    if (++stage_ == count_) {
      stage_ = 0;
      parity_ ^= 1;
    }
  }
  __device__ __forceinline__ void Copy(const LinearArgs& a, const LinearBuffers& b,
                                       const Maps& maps, const Params& p, const Work& w, int c) {
    const uint32_t stage = SharedAddress(shared_) + stage_ * at_.bytes, full = full_ + stage_ * 8;
    const int row = w.row + c * kChunk, decays = p.states * kDecayBytes;
    const int first_out = w.first_state * (a.out_heads / a.state_heads) + p.member;
    ArriveExpecting(full, at_.decays + decays);
#pragma unroll
    for (int tile = 0; tile < kKeys / 64; ++tile) {
      const int column = p.first_key + tile * 64, to = stage + tile * kTileBytes;
      if (Queries(kPass)) CopyHeadBox(to, &maps.q, column, QueryHead(a, first_out), row, full);
      CopyHeadBox(to + at_.k, &maps.k, column, KeyHead(a, w.first_state), row, full);
    }
    for (int g = 0; g < p.groups; ++g) {
      const int state = w.first_state + (p.states > 1 ? g : 0);
      const int column = w.first_column + (p.states > 1 ? 0 : g * 64);
      CopyHeadBox(stage + at_.v + g * kTileBytes, &maps.v, column, ValueHead(a, state), row, full);
    }
    for (int s = 0; TakesScores(kPass) && s < p.states; ++s) {
      const int64_t tile = w.LocalChunk(p, c) * a.out_heads + first_out + s;
      CopyBox(stage + at_.scores + s * kTileBytes, &maps.scores, 0, static_cast<int>(tile * kChunk),
              full);
    }
    CopyBytes(stage + at_.decays, DecaysOf(a, b, w, p, c), decays, full);
  }

  char* const shared_;
  const Stage at_;
  const int count_;
  uint32_t full_, empty_;
  int stage_ = 0, parity_ = 0;
};

#else

// One stage, which the block's threads fill.
template <int kKeys, Pass kPass>
class Stages {
 public:
  static constexpr int kExtraThreads = 0;

  __device__ Stages(char* shared, const Params& p)
      : shared_(shared), at_(StageLayout<kKeys, kPass>(p.groups, p.states)) {}

  __device__ __forceinline__ bool Fills(const Params&) const { return false; }
  __device__ __forceinline__ void Fill(const LinearArgs&, const LinearBuffers&, const Maps&,
                                       const Params&, const Work&) {}
  __device__ __forceinline__ char* Wait(const LinearArgs& a, const LinearBuffers& b,
                                        const Params& p, const Work& w, int c) {
    Copy(a, b, p, w, c);
    WaitCopies<0>();
    __syncthreads();
    return shared_;
  }
  __device__ __forceinline__ void Release() { __syncthreads(); }
  __device__ __forceinline__ const Stage& at() const { return at_; }

 private:
  // 64 columns of a head, of which `width` exist, from `column` on.
  __device__ __forceinline__ void CopyTile(uint32_t to, const bf16* head, int64_t stride,
                                           int column, int width, int tokens) const {
    for (int i = threadIdx.x; i < kChunk * 8; i += blockDim.x) {
      const int row = i / 8, c = column + i % 8 * 8;
      const bool valid = row < tokens && c < width;
      CopyAsync16(to + TileAt(row, i % 8), head + (valid ? row * stride + c : 0), valid);
    }
  }
  __device__ __forceinline__ void Copy(const LinearArgs& a, const LinearBuffers& b, const Params& p,
                                       const Work& w, int c) const {
    const uint32_t stage = SharedAddress(shared_);
    const int tokens = w.Tokens(c);
    const int64_t stride = a.front_stride;
    const bf16* rows = a.prompt_front + (w.row + int64_t{c} * kChunk) * stride;
    for (int tile = 0; tile < kKeys / 64; ++tile) {
      const int column = p.first_key + tile * 64, to = stage + tile * kTileBytes;
      if (Queries(kPass))
        CopyTile(to, rows + QueryHead(a, w.out_head) * a.dk, stride, column, a.dk, tokens);
      CopyTile(to + at_.k, rows + a.k_offset + KeyHead(a, w.state) * a.dk, stride, column, a.dk,
               tokens);
    }
    CopyTile(stage + at_.v, rows + a.v_offset + ValueHead(a, w.state) * a.dv, stride, w.column,
             a.dv, tokens);
    if (TakesScores(kPass)) {
      const int64_t tile = w.LocalChunk(p, c) * a.out_heads + w.out_head;
      CopyTile(stage + at_.scores, b.chunk.scores + tile * kChunk * kChunk, kChunk, 0, kChunk,
               kChunk);
    }
    const float* decays = DecaysOf(a, b, w, p, c);
    for (int i = threadIdx.x; i < kDecayBytes / 16; i += blockDim.x)
      CopyAsync16(stage + at_.decays + i * 16, decays + i * 4, true);
    CommitCopies();
  }

  char* const shared_;
  const Stage at_;
};

template <int kRegisters>
__device__ __forceinline__ void TakeRegisters() {}
template <int kRegisters>
__device__ __forceinline__ void LeaveRegisters() {}

#endif

__device__ __forceinline__ uint32_t ScalePair(uint32_t pair, float2 by) {
  return PackBf16(LowBf16(pair) * by.x, HighBf16(pair) * by.y);
}
// Each token's values times `scales` (kChunk).
__device__ __forceinline__ void ScaleValues(const float* scales, uint32_t (&v)[4][4]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int s = 0; s < 4; ++s) {
    const float2 low = *reinterpret_cast<const float2*>(scales + s * 16 + 2 * t);
    const float2 high = *reinterpret_cast<const float2*>(scales + s * 16 + 8 + 2 * t);
    v[s][0] = ScalePair(v[s][0], low);
    v[s][1] = ScalePair(v[s][1], low);
    v[s][2] = ScalePair(v[s][2], high);
    v[s][3] = ScalePair(v[s][3], high);
  }
}
// Each token's outputs times `scales` (kChunk).
__device__ __forceinline__ void ScaleOutputs(const float* scales, float (&o)[32]) {
  const int t = threadIdx.x % 4;
#pragma unroll
  for (int n = 0; n < 8; ++n) {
    const float2 by = *reinterpret_cast<const float2*>(scales + n * 8 + 2 * t);
    o[n * 4] *= by.x;
    o[n * 4 + 1] *= by.y;
    o[n * 4 + 2] *= by.x;
    o[n * 4 + 3] *= by.y;
  }
}

// Starts o += S^T q^T: (16 columns of v a warp, tokens). Steps of 16 keys are rounded in two sets
// of registers, so that the next are made while the last are read.
template <int kKeys>
__device__ __forceinline__ void QueryState(const float (&state)[kKeys / 2], uint32_t q,
                                           float (&o)[32]) {
  constexpr int kSteps = 2;
  uint32_t left[2][kSteps][4];
#pragma unroll
  for (int i = 0; i < kKeys / 16 / kSteps; ++i) {
    if (i >= 2) WgmmaWait<1>();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const float* pairs = state + (i * kSteps + step) * 8;
#pragma unroll
      for (int j = 0; j < 4; ++j) left[i % 2][step][j] = PackBf16(pairs[2 * j], pairs[2 * j + 1]);
    }
    WgmmaFence();
#pragma unroll
    for (int step = 0; step < kSteps; ++step) {
      const int at = i * kSteps + step;
      WgmmaRegisters<64, false>::Run(o, left[i % 2][step],
                                     SwizzledTile(q + at / 4 * kTileBytes) + at % 4 * 2);
    }
    WgmmaCommit();
  }
}
// Starts o += scores v, in which scores above the diagonal are zeros.
__device__ __forceinline__ void AddScored(const uint32_t (&v)[4][4], uint32_t scores,
                                          float (&o)[32]) {
  WgmmaFence();
#pragma unroll
  for (int s = 0; s < 4; ++s) WgmmaRegisters<64, false>::Run(o, v[s], SwizzledTile(scores) + s * 2);
  WgmmaCommit();
}
// Starts S += v^T k.
template <int kKeys>
__device__ __forceinline__ void AddKeys(const uint32_t (&v)[4][4], uint32_t k,
                                        float (&state)[kKeys / 2]) {
  const uint64_t right = SwizzledTile(k, kTileBytes);
  WgmmaFence();
#pragma unroll
  for (int s = 0; s < 4; ++s)
    WgmmaRegisters<kKeys, true>::Run(state, v[s], right + s * (16 * 128 >> 4));
  WgmmaCommit();
}

// A chunk of the outer product alone.
template <int kKeys>
__device__ __forceinline__ void SumChunk(uint32_t k, uint32_t values, const float* decays,
                                         float (&state)[kKeys / 2]) {
  uint32_t v[4][4];
  LoadValues(values, v);
  ScaleValues(decays + kChunk, v);
  const float decay = decays[kChunk - 1];
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) state[i] *= decay;
  AddKeys<kKeys>(v, k, state);
  WgmmaWait<0>();
  WgmmaDone(state);
}

// A chunk: o, and the state after it. Products follow each other without a wait: the state's sums
// run while o is scaled.
template <int kKeys, Pass kPass>
__device__ __forceinline__ void TakeChunk(uint32_t q, uint32_t k, uint32_t values, uint32_t scores,
                                          const float* decays, float (&state)[kKeys / 2],
                                          float (&o)[32]) {
#pragma unroll
  for (int i = 0; i < 32; ++i) o[i] = 0.0f;
  QueryState<kKeys>(state, q, o);
  uint32_t v[4][4];
  LoadValues(values, v);
  ScaleValues(decays + kChunk, v);
  const float decay = decays[kChunk - 1];
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) state[i] *= decay;
  AddKeys<kKeys>(v, k, state);
  WgmmaWait<1>();
  WgmmaDone(o);
  ScaleOutputs(decays, o);
  uint32_t raw[4][4];
  if constexpr (TakesScores(kPass)) {
    LoadValues(values, raw);
    AddScored(raw, scores, o);
  }
  WgmmaWait<0>();
  WgmmaDone(o);
  WgmmaDone(state);
}

// The accumulators of a state in a slot, (dk, dv); what lies outside is zeros.
template <int kKeys, class Use>
__device__ __forceinline__ void ForEachOfState(const LinearArgs& a, const Params& p, int column,
                                               Use use) {
  const int lane = threadIdx.x % 32, t = lane % 4;
  const int first = column + threadIdx.x / 32 % kGroupWarps * 16 + lane / 4;
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) {
    const int key = p.first_key + i / 4 * 8 + 2 * t + i % 2, col = first + i % 4 / 2 * 8;
    use(i, key < a.dk && col < a.dv, static_cast<int64_t>(key) * a.dv + col);
  }
}

// A warpgroup's 64 columns of a state through the chunks of a span.
template <int kKeys, Pass kPass>
__device__ __forceinline__ void TakeSpan(const LinearArgs& a, const LinearBuffers& b,
                                         const Params& p, const Work& w, char* shared,
                                         Stages<kKeys, kPass>* stages) {
  const Stage& at = stages->at();
  const int tiles = (a.dv + 63) / 64, tile = w.column / 64;
  const bool exists = w.column < a.dv;
  float* const slot =
      a.states + w.span.slot * a.slot_stride + w.state * static_cast<int64_t>(a.dk) * a.dv;
  float* const carry =
      b.chunk.carry +
      ((static_cast<int64_t>(w.span.carry) * a.state_heads + w.state) * tiles + tile) * 64 *
          b.chunk.key_stride +
      p.first_key * 64;
  float state[kKeys / 2];
#pragma unroll
  for (int i = 0; i < kKeys / 2; ++i) state[i] = 0.0f;
  if (kPass != Pass::kSums && exists) {
    if (w.span.carry >= 0) {
      LoadFragments(carry, state);
    } else {
      ForEachOfState<kKeys>(a, p, w.column, [&](int i, bool valid, int64_t from) {
        state[i] = valid ? slot[from] : 0.0f;
      });
    }
  }

  float span_decay = 1.0f;
  for (int c = 0; c < w.span.chunks; ++c) {
    char* const stage_at = stages->Wait(a, b, p, w, c);
    const uint32_t stage = SharedAddress(stage_at);
    const uint32_t values = stage + at.v + w.group * kTileBytes;
    const float* decays =
        reinterpret_cast<const float*>(stage_at + at.decays + w.of_block * kDecayBytes);
    span_decay *= decays[kChunk - 1];
    if constexpr (kPass == Pass::kSums) {
      SumChunk<kKeys>(stage + at.k, values, decays, state);
      stages->Release();
    } else {
      float o[32];
      TakeChunk<kKeys, kPass>(stage, stage + at.k, values,
                              stage + at.scores + w.of_block * kTileBytes, decays, state, o);
      stages->Release();
      float* const partial =
          b.chunk.partial +
          ((w.LocalChunk(p, c) * a.out_heads + w.out_head) * tiles + tile) * kChunk * 64;
      if (AddsPartial(kPass) && exists) AddFragments(partial, o);
      if (LeavesPartial(kPass) && exists) StoreFragments(o, partial);
      if constexpr (!LeavesPartial(kPass)) {
        const int warp = threadIdx.x / 32, column = w.column + warp % kGroupWarps * 16;
        const int64_t row = w.row + int64_t{c} * kChunk;
        StoreOutputs(o, shared + p.stages * at.bytes + warp * kOutputRowsBytes, w.Tokens(c),
                     a.dv - column,
                     p.out + row * p.out_stride + static_cast<int64_t>(w.out_head) * a.dv + column,
                     p.out_stride);
      }
    }
  }

  if (kPass == Pass::kSums && exists) {
    StoreFragments(state, carry);
    // The whole span's decay, for the scan.
    if (tile == 0 && threadIdx.x % kGroupThreads == 0)
      b.chunk.span_decay[static_cast<int64_t>(w.span.carry) * a.state_heads + w.state] = span_decay;
  }
  // A whole span's state comes from the scan, so that it is the same however the prompt was cut.
  if (kPass != Pass::kSums && w.span.carry < 0 && p.member == a.out_heads / a.state_heads - 1) {
    ForEachOfState<kKeys>(a, p, w.column, [&](int i, bool valid, int64_t to) {
      if (valid) slot[to] = state[i];
    });
  }
}

template <int kKeys, Pass kPass>
__global__ void __launch_bounds__(kMostGroups* kGroupThreads + Stages<kKeys, kPass>::kExtraThreads,
                                  1)
    LinearChunkKernel(const __grid_constant__ LinearArgs a, const __grid_constant__ LinearBuffers b,
                      const __grid_constant__ Maps maps, const __grid_constant__ Params p) {
  extern __shared__ char unaligned[];
  char* const shared = unaligned + (1024 - SharedAddress(unaligned) % 1024) % 1024;
  Stages<kKeys, kPass> stages(shared, p);
  WaitForPredecessor();
  const Work w(a, p);
  if (stages.Fills(p)) {
    LeaveRegisters<40>();
    stages.Fill(a, b, maps, p, w);
  } else {
    TakeRegisters<232>();
    TakeSpan(a, b, p, w, shared, &stages);
  }
}

// True if runs of `states` states share their query and their key.
bool Share(const LinearArgs& a, int states) {
  return a.out_heads == a.state_heads && a.state_heads / a.q_heads % states == 0 &&
         a.state_heads / a.k_heads % states == 0;
}

cudaError_t MakeMaps(const LinearArgs& a, const LinearBuffers& b, const ChunkRange& range,
                     Maps* maps) {
  const int64_t rows = a.front_rows, stride = a.front_stride;
  cudaError_t error = MakeHeadsMap(a.prompt_front, rows, stride, a.q_heads, a.dk, &maps->q);
  if (error == cudaSuccess)
    error = MakeHeadsMap(a.prompt_front + a.k_offset, rows, stride, a.k_heads, a.dk, &maps->k);
  if (error == cudaSuccess)
    error = MakeHeadsMap(a.prompt_front + a.v_offset, rows, stride, a.v_heads, a.dv, &maps->v);
  if (error != cudaSuccess) return error;
  const int64_t tiles = static_cast<int64_t>(range.chunks) * a.out_heads;
  return MakeTensorMap(b.chunk.scores, tiles * kChunk, kChunk, kChunk, &maps->scores);
}

template <int kKeys, Pass kPass>
cudaError_t LaunchPass(const LinearArgs& a, const LinearBuffers& b, const Maps& maps, Params p,
                       int spans, cudaStream_t stream) {
  const bool hopper = HasHopperCode();
  const int tiles = (a.dv + 63) / 64, most = hopper ? kMostGroups : 1;
  p.groups = tiles < most ? tiles : most;
  p.states = 1;
  if (tiles == 1 && most > 1 && Share(a, most)) p.states = p.groups = most;
  const int stage = StageLayout<kKeys, kPass>(p.groups, p.states).bytes;
  constexpr int kRoom = 226 * 1024;  // of a Hopper's block, but for what is declared
  const int rest =
      1024 +
      (LeavesPartial(kPass) || !Queries(kPass) ? 0 : p.groups * kGroupWarps * kOutputRowsBytes);
  p.stages = !hopper                                ? 1
             : (kRoom - rest) / stage < kMostStages ? (kRoom - rest) / stage
                                                    : kMostStages;
  const int bytes = rest + p.stages * stage;
  const auto kernel = LinearChunkKernel<kKeys, kPass>;
  const cudaError_t prepared =
      cudaFuncSetAttribute(kernel, cudaFuncAttributeMaxDynamicSharedMemorySize, bytes);
  if (prepared != cudaSuccess) return prepared;
  const dim3 grid(p.states > 1 ? 1 : (tiles + p.groups - 1) / p.groups, a.state_heads / p.states,
                  spans);
  return Launch(kernel, grid, (p.groups + (hopper ? 1 : 0)) * kGroupThreads, bytes, stream, 1, a, b,
                maps, p);
}

template <Pass kPass>
cudaError_t LaunchKeys(const LinearArgs& a, const LinearBuffers& b, const Maps& maps,
                       const Params& p, int spans, cudaStream_t stream) {
  const int keys = b.chunk.key_stride - p.first_key;
  return keys <= 64    ? LaunchPass<64, kPass>(a, b, maps, p, spans, stream)
         : keys <= 128 ? LaunchPass<128, kPass>(a, b, maps, p, spans, stream)
         : keys <= 192 ? LaunchPass<192, kPass>(a, b, maps, p, spans, stream)
                       : LaunchPass<256, kPass>(a, b, maps, p, spans, stream);
}

// All keys of one of the output heads that share a state.
cudaError_t LaunchMember(const LinearArgs& a, const LinearBuffers& b, const Maps& maps, Params p,
                         int spans, cudaStream_t stream) {
  const int keys = b.chunk.key_stride;
  if (keys <= kPassKeys) return LaunchKeys<Pass::kOnly>(a, b, maps, p, spans, stream);
  cudaError_t error = LaunchPass<kPassKeys, Pass::kFirst>(a, b, maps, p, spans, stream);
  for (p.first_key = kPassKeys; p.first_key < keys && error == cudaSuccess;
       p.first_key += kPassKeys) {
    error = p.first_key + kPassKeys < keys
                ? LaunchPass<kPassKeys, Pass::kMiddle>(a, b, maps, p, spans, stream)
                : LaunchKeys<Pass::kLast>(a, b, maps, p, spans, stream);
  }
  return error;
}

}  // namespace

cudaError_t LaunchLinearSpanSums(const LinearArgs& args, const LinearBuffers& buffers,
                                 const ChunkRange& range, cudaStream_t stream) {
  if (range.whole_spans == 0) return cudaSuccess;
  Maps maps;
  cudaError_t error = MakeMaps(args, buffers, range, &maps);
  Params p = {.first_chunk = range.first_chunk, .first_span = range.first_span};
  for (; p.first_key < buffers.chunk.key_stride && error == cudaSuccess; p.first_key += kPassKeys)
    error = LaunchKeys<Pass::kSums>(args, buffers, maps, p, range.whole_spans, stream);
  return error;
}

cudaError_t LaunchLinearChunks(const LinearArgs& args, const LinearBuffers& buffers, bf16* out,
                               int64_t out_stride, const ChunkRange& range, cudaStream_t stream) {
  if (range.spans == 0) return cudaSuccess;
  Maps maps;
  cudaError_t error = MakeMaps(args, buffers, range, &maps);
  Params p = {.first_chunk = range.first_chunk, .first_span = range.first_span};
  p.out = out;
  p.out_stride = out_stride;
  for (; p.member < args.out_heads / args.state_heads && error == cudaSuccess; ++p.member)
    error = LaunchMember(args, buffers, maps, p, range.spans, stream);
  return error;
}

}  // namespace sluice::cuda
