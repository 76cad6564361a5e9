// The softmax core for prompts, as FlashAttention has it (arXiv 2205.14135): a block takes up to 64
// tokens of one query head through the keys that they see, 64 at a time in the order of absolute
// positions. Heads whose widths are multiples of 8, up to 256, use tensor cores; others go through
// plain arithmetic, a block a token. A block of keys that a row does not see changes nothing of the
// row, to the bit.
#include "kernels/cuda/softmax_row.cuh"

namespace sluice::cuda {
namespace {

constexpr int kTokens = kChunk;
constexpr int kWarps = kTokens / 16;
constexpr int kThreads = kWarps * 32;
static_assert(kTokens == kPageTokens);

__device__ __forceinline__ Keys KeysOf(const SoftmaxArgs& a, const ChunkMeta& chunk, int head) {
  return Keys(a, chunk.slot, chunk.pages, chunk.position - chunk.offset,
              int64_t{chunk.row} - chunk.offset, head);
}

// A tile of kTokens rows of kWidth elements; rows are apart by an odd number of 16-byte words, so
// that banks differ.
template <int kWidth>
struct Tile {
  static constexpr int kStride = kWidth + 8, kElements = kTokens * kStride;
};

template <int kWidth>
class PromptTile {
 public:
  // shared: three tiles.
  __device__ PromptTile(const SoftmaxArgs& a, const ChunkMeta& chunk, int q_head, bf16* shared)
      : a_(a),
        chunk_(chunk),
        keys_(KeysOf(a, chunk, q_head / (a.q_heads / a.kv_heads))),
        q_head_(q_head),
        q_(shared),
        k_(shared + Tile<kWidth>::kElements),
        v_(shared + 2 * Tile<kWidth>::kElements) {}

  __device__ void Run() {
    const int64_t end = chunk_.position + chunk_.tokens;
    const int64_t seen = FirstSeen(a_, chunk_.position), last = (end - 1) / kPageTokens;
    LoadQueries();
    int64_t block = seen / kPageTokens;
    LoadKeys(block, seen, end);
    CommitCopies();
    for (; block <= last; ++block) {
      LoadValues(block, seen, end);
      CommitCopies();
      WaitCopies<1>();
      __syncthreads();
      float scores[8][4] = {};
      Score(scores);
      __syncthreads();
      if (block < last) LoadKeys(block + 1, seen, end);
      CommitCopies();
      Weigh(static_cast<int>(block * kPageTokens - chunk_.position), scores);
      WaitCopies<1>();
      __syncthreads();
      AddValues(scores);
      __syncthreads();
    }
    WaitCopies<0>();
  }

  __device__ void Store(bf16* out, int64_t out_stride) const {
    const int lane = threadIdx.x % 32, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = threadIdx.x / 32 * 16 + half * 8 + g;
      if (token >= chunk_.tokens) continue;
      bf16* to = out + (int64_t{chunk_.row} + token) * out_stride + q_head_ * a_.dv;
      const float inverse = 1.0f / sum_[half];
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        const int c = n * 8 + 2 * t;
        if (c < a_.dv) {
          *reinterpret_cast<uint32_t*>(to + c) =
              PackBf16(acc_[n][2 * half] * inverse, acc_[n][2 * half + 1] * inverse);
        }
      }
    }
  }

 private:
  static constexpr int kStride = Tile<kWidth>::kStride;
  static constexpr int kUnits = kWidth / 8;  // 16-byte words of a row

  // Eight elements into a tile, zeros where `valid` is false.
  __device__ __forceinline__ void Put(bf16* tile, int row, int unit, const HeadAt& at, bool valid) {
    bf16* to = tile + row * kStride + unit * 8;
    if (valid && at.wide != nullptr) {
      *reinterpret_cast<uint4*>(to) = at.EightAt(unit * 8);
    } else {
      CopyAsync16(SharedAddress(to), valid ? at.narrow + unit * 8 : a_.front, valid);
    }
  }
  __device__ void LoadQueries() {
    for (int i = threadIdx.x; i < kTokens * kUnits; i += kThreads) {
      const int row = i / kUnits, unit = i % kUnits;
      HeadAt at;
      at.narrow = a_.front + (int64_t{chunk_.row} + row) * a_.front_stride + q_head_ * a_.dk;
      Put(q_, row, unit, at, row < chunk_.tokens && unit * 8 < a_.dk);
    }
  }
  __device__ void LoadKeys(int64_t block, int64_t seen, int64_t end) {
    for (int i = threadIdx.x; i < kTokens * kUnits; i += kThreads) {
      const int row = i / kUnits, unit = i % kUnits;
      const int64_t position = block * kPageTokens + row;
      const bool valid = position >= seen && position < end && unit * 8 < a_.dk;
      Put(k_, row, unit, valid ? keys_.KeyAt(position) : HeadAt(), valid);
    }
  }
  __device__ void LoadValues(int64_t block, int64_t seen, int64_t end) {
    for (int i = threadIdx.x; i < kTokens * kUnits; i += kThreads) {
      const int row = i / kUnits, unit = i % kUnits;
      const int64_t position = block * kPageTokens + row;
      const bool valid = position >= seen && position < end && unit * 8 < a_.dv;
      Put(v_, row, unit, valid ? keys_.ValueAt(position) : HeadAt(), valid);
    }
  }

  // scores (16 tokens a warp, 64 keys) = q k^T
  __device__ __forceinline__ void Score(float (&scores)[8][4]) const {
    const int lane = threadIdx.x % 32;
    const uint32_t q =
        SharedAddress(q_ + (threadIdx.x / 32 * 16 + lane % 16) * kStride + lane / 16 * 8);
    const uint32_t k = SharedAddress(k_ + (lane % 8 + lane / 16 * 8) * kStride + lane / 8 % 2 * 8);
#pragma unroll
    for (int step = 0; step < kWidth / 16; ++step) {
      uint32_t left[4];
      LoadMatrix4(left, q + step * 32);
#pragma unroll
      for (int n = 0; n < 4; ++n) {
        uint32_t right[4];
        LoadMatrix4(right, k + (n * 16 * kStride + step * 16) * 2);
        Mma(scores[2 * n], left[0], left[1], left[2], left[3], right[0], right[1]);
        Mma(scores[2 * n + 1], left[0], left[1], left[2], left[3], right[2], right[3]);
      }
    }
  }

  // Scores become weights. `first`: the block's first position, counted from the chunk's.
  __device__ __forceinline__ void Weigh(int first, float (&scores)[8][4]) {
    const int lane = threadIdx.x % 32, t = lane % 4;
    const float scale = a_.scale * kLog2E;
#pragma unroll
    for (int half = 0; half < 2; ++half) {
      const int token = threadIdx.x / 32 * 16 + half * 8 + lane / 4;
      const bool bounded = a_.window > 0 && a_.window <= INT32_MAX / 4;
      const int begin = bounded ? token - static_cast<int>(a_.window) + 1 : INT32_MIN;
      float largest = -INFINITY;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          const int key = first + n * 8 + 2 * t + i;
          float& score = scores[n][2 * half + i];
          score = key <= token && key >= begin ? score * scale : -INFINITY;
          largest = fmaxf(largest, score);
        }
      }
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 1));
      largest = fmaxf(largest, __shfl_xor_sync(0xffffffffu, largest, 2));
      largest = fmaxf(largest, max_[half]);
      const float center = largest == -INFINITY ? 0.0f : largest;
      const float factor = Exp2(max_[half] - center);
      max_[half] = largest;
      float sum = 0.0f;
#pragma unroll
      for (int n = 0; n < 8; ++n) {
#pragma unroll
        for (int i = 0; i < 2; ++i) {
          float& score = scores[n][2 * half + i];
          score = Exp2(score - center);
          sum += score;
        }
      }
      sum += __shfl_xor_sync(0xffffffffu, sum, 1);
      sum += __shfl_xor_sync(0xffffffffu, sum, 2);
      sum_[half] = fmaf(sum_[half], factor, sum);
#pragma unroll
      for (int n = 0; n < kWidth / 8; ++n) {
        acc_[n][2 * half] *= factor;
        acc_[n][2 * half + 1] *= factor;
      }
    }
  }

  __device__ __forceinline__ void AddValues(const float (&weights)[8][4]) {
    const int lane = threadIdx.x % 32;
    const uint32_t v = SharedAddress(v_ + (lane % 8 + lane / 8 % 2 * 8) * kStride + lane / 16 * 8);
#pragma unroll
    for (int step = 0; step < 4; ++step) {  // of 16 keys
      const float(&low)[4] = weights[2 * step];
      const float(&high)[4] = weights[2 * step + 1];
      const uint32_t left[4] = {PackBf16(low[0], low[1]), PackBf16(low[2], low[3]),
                                PackBf16(high[0], high[1]), PackBf16(high[2], high[3])};
#pragma unroll
      for (int n = 0; n < kWidth / 16; ++n) {
        uint32_t right[4];
        LoadMatrix4Transposed(right, v + (step * 16 * kStride + n * 16) * 2);
        Mma(acc_[2 * n], left[0], left[1], left[2], left[3], right[0], right[1]);
        Mma(acc_[2 * n + 1], left[0], left[1], left[2], left[3], right[2], right[3]);
      }
    }
  }

  const SoftmaxArgs& a_;
  const ChunkMeta& chunk_;
  const Keys keys_;
  const int q_head_;
  bf16 *const q_, *const k_, *const v_;
  float acc_[kWidth / 8][4] = {};
  float max_[2] = {-INFINITY, -INFINITY}, sum_[2] = {};  // of the lane's two tokens
};

template <int kWidth>
__global__ void __launch_bounds__(kThreads)
    SoftmaxTileKernel(const __grid_constant__ SoftmaxArgs a, bf16* out, int64_t out_stride) {
  extern __shared__ __align__(16) bf16 tiles[];
  WaitForPredecessor();
  // The last chunks of a prompt have the most keys, and begin first.
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[gridDim.y - 1 - blockIdx.y];
  PromptTile<kWidth> tile(a, chunk, blockIdx.x, tiles);
  tile.Run();
  tile.Store(out, out_stride);
}

// A block a token and head of keys.
template <int kGroup, int kColumns>
__global__ void __launch_bounds__(kRowThreads)
    SoftmaxRowKernel(const __grid_constant__ SoftmaxArgs a, bf16* out, int64_t out_stride) {
  __shared__ RowShared<kGroup, kColumns> shared;
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.z];
  const int token = blockIdx.x, groups = a.q_heads / a.kv_heads;
  if (token >= chunk.tokens) return;
  const Keys keys = KeysOf(a, chunk, blockIdx.y);
  const int64_t row = int64_t{chunk.row} + token;
  for (int g0 = 0; g0 < groups; g0 += kGroup) {
    const int first = blockIdx.y * groups + g0, count = min(kGroup, groups - g0);
    RowAttention<kGroup, kColumns> heads(a, keys, row, chunk.position + token, first, count,
                                         &shared);
    heads.Run(0, 1);
#pragma unroll
    for (int g = 0; g < kGroup; ++g) {
      if (g >= count) break;
#pragma unroll
      for (int i = 0; i < kColumns; ++i) {
        const int c = threadIdx.x + i * kRowThreads;
        if (c < a.dv) {
          out[row * out_stride + (first + g) * a.dv + c] =
              __float2bfloat16_rn(heads.Value(g, i) / heads.Sum(g));
        }
      }
    }
    __syncthreads();
  }
}

// Keeps all tokens of the chunks, but in a ring only those that the segment leaves there: its last
// `window` ones.
__global__ void __launch_bounds__(kThreads)
    KeepChunksKernel(const __grid_constant__ SoftmaxArgs a) {
  WaitForPredecessor();
  const ChunkMeta* meta = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + blockIdx.y;
  const ChunkMeta chunk = *meta;
  const int token = blockIdx.x;
  if (token >= chunk.tokens) return;
  if (a.window > 0 && chunk.offset + token + a.window < chunk.segment_tokens) return;
  KeepRow(a, chunk.slot, chunk.pages, chunk.position + token, int64_t{chunk.row} + token,
          threadIdx.x, kThreads);
}

template <int kWidth>
cudaError_t LaunchTiles(const SoftmaxArgs& args, bf16* out, int64_t out_stride, int chunks,
                        cudaStream_t stream) {
  constexpr int kBytes = 3 * Tile<kWidth>::kElements * static_cast<int>(sizeof(bf16));
  const cudaError_t error = cudaFuncSetAttribute(
      SoftmaxTileKernel<kWidth>, cudaFuncAttributeMaxDynamicSharedMemorySize, kBytes);
  if (error != cudaSuccess) return error;
  return Launch(SoftmaxTileKernel<kWidth>, dim3(args.q_heads, chunks), kThreads, kBytes, stream, 1,
                args, out, out_stride);
}

bool TakesTiles(const SoftmaxArgs& a) {
  // Rings are read 16 bytes at a time.
  const bool ring = a.window == 0 || (reinterpret_cast<uintptr_t>(a.ring_keys) % 16 == 0 &&
                                      reinterpret_cast<uintptr_t>(a.ring_values) % 16 == 0 &&
                                      a.slot_stride % 4 == 0);
  return ring && a.dk % 8 == 0 && a.dv % 8 == 0 && a.dk <= 256 && a.dv <= 256;
}

}  // namespace

cudaError_t LaunchSoftmaxPrompts(const SoftmaxArgs& args, bf16* out, int64_t out_stride, int chunks,
                                 cudaStream_t stream) {
  cudaError_t error;
  if (TakesTiles(args)) {
    const int width = args.dk > args.dv ? args.dk : args.dv;
    error = width <= 64    ? LaunchTiles<64>(args, out, out_stride, chunks, stream)
            : width <= 128 ? LaunchTiles<128>(args, out, out_stride, chunks, stream)
                           : LaunchTiles<256>(args, out, out_stride, chunks, stream);
  } else {
    error = ForRowShape(args, [&]<int kGroup, int kColumns>() {
      return Launch(SoftmaxRowKernel<kGroup, kColumns>, dim3(kChunk, args.kv_heads, chunks),
                    kRowThreads, 0, stream, 1, args, out, out_stride);
    });
  }
  if (error != cudaSuccess) return error;
  return Launch(KeepChunksKernel, dim3(kChunk, chunks), kThreads, 0, stream, 1, args);
}

}  // namespace sluice::cuda
