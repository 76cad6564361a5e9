// Everything of a generic linear mixer that is local to a token, and the convolution: a thread
// takes 8 channels of q, of k or of v (4 and their partners where halves of a head are turned), or
// the gates of 8 states; one channel (and its partner) where a head's width is no multiple of 8.
// kHalf below is 4 or 1 of these. Decode rows leave fp32 for the recurrence, prompt rows bf16 for
// the tensor cores.
#include <cmath>

#include "kernels/cuda/device.cuh"
#include "kernels/cuda/linear_front.h"
#include "kernels/mixer_math.h"

namespace sluice::cuda {
namespace {

constexpr int kThreads = 256;
constexpr int kTokens = 16;   // of a prompt that a thread takes one after another
constexpr int kMostTaps = 4;  // whose weights a thread keeps in registers

__device__ __forceinline__ float Map(FeatureMap map, float x) {
  switch (map) {
    case FeatureMap::kRelu:
      return mixer_math::Relu(x);
    case FeatureMap::kSigmoid:
      return mixer_math::Sigmoid(x);
    case FeatureMap::kLogSigmoid:
      return mixer_math::LogSigmoid(x);
    case FeatureMap::kSilu:
      return mixer_math::Silu(x);
    case FeatureMap::kSquaredRelu:
      return mixer_math::SquaredRelu(x);
    case FeatureMap::kGeluTanh:
      return mixer_math::GeluTanh(x);
    case FeatureMap::kGelu:
      return mixer_math::GeluErf(x);
    case FeatureMap::kTanh:
      return mixer_math::Tanh(x);
    case FeatureMap::kElu:
      return mixer_math::ShiftedElu(x, 0.0f);
    case FeatureMap::kEluPlusOne:
      return mixer_math::ShiftedElu(x, 1.0f);
    case FeatureMap::kEluPlusTwo:
      return mixer_math::ShiftedElu(x, 2.0f);
    case FeatureMap::kLeakyRelu:
      return mixer_math::LeakyRelu(x);
    case FeatureMap::kSine:
      return mixer_math::Sine(x);
    default:  // kIdentity; maps of whole heads are linear_maps.cu's
      return x;
  }
}

// A row: where it is, and where its results go.
struct Row {
  int64_t row;       // of the step
  int64_t position;  // in its sequence
  int32_t earlier;   // tokens of its segment before it in this step; 0 in a decode row
  float* states;     // of its slot
};

// A thread's channels are [c0, c0 + kHalf) and, if there is a `second` half, [c1, c1 + kHalf) of a
// stream.
struct Unit {
  int stream;  // 0, 1, 2: q, k, v; 3: gates; 4: none
  int c0, c1;  // channels of the stream; c0 of gates: the first state
  bool second;
};

// True if a state's decay is one number for each token.
__host__ __device__ __forceinline__ bool DecaysStates(const FrontArgs& a) {
  return a.gate == GateMap::kMamba2 || a.gate == GateMap::kGla || a.gate == GateMap::kGatedDelta;
}
// True if a state has a decay or a beta for each token.
__host__ __device__ __forceinline__ bool GatesStates(const FrontArgs& a) {
  return DecaysStates(a) || a.beta != nullptr;
}

// How many channels of a stream a thread takes.
template <int kHalf>
__host__ __device__ __forceinline__ int ChannelsOfUnit(const FrontStream& stream) {
  return kHalf > 1 || stream.rope == Rope::kHalves ? 2 * kHalf : 1;
}

template <int kHalf>
__device__ __forceinline__ Unit UnitOf(const FrontArgs& a, int index) {
  for (int s = 0; s < 3; ++s) {
    const FrontStream& stream = a.streams[s];
    const int channels = ChannelsOfUnit<kHalf>(stream);
    const int units = stream.heads * stream.width / channels;
    if (index >= units) {
      index -= units;
      continue;
    }
    if (stream.rope != Rope::kHalves)
      return {s, index * channels, index * channels + kHalf, channels > 1};
    const int of_head = stream.width / channels, head = index / of_head;
    const int c = head * stream.width + index % of_head * kHalf;
    return {s, c, c + stream.width / 2, true};
  }
  const int state = index * 2 * kHalf;
  return {GatesStates(a) && state < a.state_heads ? 3 : 4, state, 0, false};
}

template <int kHalf>
int Units(const FrontArgs& a) {
  int units = GatesStates(a) ? (a.state_heads + 2 * kHalf - 1) / (2 * kHalf) : 0;
  for (const FrontStream& stream : a.streams)
    units += stream.heads * stream.width / ChannelsOfUnit<kHalf>(stream);
  return units;
}

__device__ __forceinline__ void LoadFour(const bf16* p, float* x) {
  const uint2 v = *reinterpret_cast<const uint2*>(p);
  x[0] = LowBf16(v.x);
  x[1] = HighBf16(v.x);
  x[2] = LowBf16(v.y);
  x[3] = HighBf16(v.y);
}
__device__ __forceinline__ void LoadFour(const float* p, float* x) {
  const float4 v = *reinterpret_cast<const float4*>(p);
  x[0] = v.x;
  x[1] = v.y;
  x[2] = v.z;
  x[3] = v.w;
}
__device__ __forceinline__ void StoreFour(float* p, const float* x) {
  *reinterpret_cast<float4*>(p) = make_float4(x[0], x[1], x[2], x[3]);
}
__device__ __forceinline__ void StoreFour(bf16* p, const float* x) {
  *reinterpret_cast<uint2*>(p) = make_uint2(PackBf16(x[0], x[1]), PackBf16(x[2], x[3]));
}

// kHalf elements.
template <int kHalf, class T>
__device__ __forceinline__ void LoadHalf(const T* p, float* x) {
  if constexpr (kHalf == 4) {
    LoadFour(p, x);
  } else {
    *x = static_cast<float>(*p);
  }
}
template <int kHalf, class T>
__device__ __forceinline__ void StoreHalf(T* p, const float* x) {
  if constexpr (kHalf == 4) {
    StoreFour(p, x);
  } else {
    *p = static_cast<T>(*x);
  }
}

// The unit's columns of the projection's row.
template <int kHalf>
__device__ __forceinline__ void LoadColumns(const FrontArgs& a, const FrontStream& s, Unit u,
                                            int64_t row, float (&x)[2 * kHalf]) {
  const bf16* in = a.in + row * a.in_stride + s.column;
  LoadHalf<kHalf>(in + u.c0, x);
  if (u.second) LoadHalf<kHalf>(in + u.c1, x + kHalf);
}

// Input `back` tokens before the row; those before the step are in the slot's tail.
template <int kHalf>
__device__ __forceinline__ void LoadInput(const FrontArgs& a, const FrontStream& s, Unit u,
                                          const Row& r, int back, float (&x)[2 * kHalf]) {
  if (back <= r.earlier) {
    LoadColumns<kHalf>(a, s, u, r.row - back, x);
    return;
  }
  const float* tail =
      r.states + s.tail + static_cast<int64_t>(a.taps - 1 - back + r.earlier) * s.heads * s.width;
  LoadHalf<kHalf>(tail + u.c0, x);
  if (u.second) LoadHalf<kHalf>(tail + u.c1, x + kHalf);
}

// The i-th of a unit's channels.
template <int kHalf>
__device__ __forceinline__ int ChannelAt(Unit u, int i) {
  return i < kHalf || !u.second ? u.c0 + i % kHalf : u.c1 + i - kHalf;
}

// A thread's weights of the convolution, where they fit registers.
template <int kHalf>
struct ConvWeights {
  float at[2 * kHalf][kMostTaps];
  float bias[2 * kHalf];

  __device__ __forceinline__ void Load(const FrontArgs& a, const FrontStream& s, Unit u) {
#pragma unroll
    for (int i = 0; i < 2 * kHalf; ++i) {
      const int c = ChannelAt<kHalf>(u, i);
      bias[i] = s.conv_bias == nullptr ? 0.0f : s.conv_bias[c];
#pragma unroll
      for (int j = 0; j < kMostTaps; ++j)
        at[i][j] = j < a.taps ? s.conv[static_cast<int64_t>(c) * a.taps + j] : 0.0f;
    }
  }
};

// The unit's channels of the row, after the convolution.
template <int kHalf>
__device__ __forceinline__ void Convolve(const FrontArgs& a, const FrontStream& s, Unit u,
                                         const Row& r, const ConvWeights<kHalf>& weights,
                                         float (&x)[2 * kHalf]) {
  float sum[2 * kHalf];
#pragma unroll
  for (int i = 0; i < 2 * kHalf; ++i) sum[i] = weights.bias[i];
  if (a.taps <= kMostTaps) {
#pragma unroll
    for (int j = 0; j < kMostTaps; ++j) {
      if (j >= a.taps) continue;
      LoadInput<kHalf>(a, s, u, r, a.taps - 1 - j, x);
#pragma unroll
      for (int i = 0; i < 2 * kHalf; ++i) sum[i] = fmaf(weights.at[i][j], x[i], sum[i]);
    }
  } else {
    for (int j = 0; j < a.taps; ++j) {
      LoadInput<kHalf>(a, s, u, r, a.taps - 1 - j, x);
#pragma unroll
      for (int i = 0; i < 2 * kHalf; ++i) {
        const int c = ChannelAt<kHalf>(u, i);
        sum[i] = fmaf(s.conv[static_cast<int64_t>(c) * a.taps + j], x[i], sum[i]);
      }
    }
  }
#pragma unroll
  for (int i = 0; i < 2 * kHalf; ++i) x[i] = a.conv_silu ? mixer_math::Silu(sum[i]) : sum[i];
}

// Moves a decode row's tail by the row's own input.
template <int kHalf>
__device__ __forceinline__ void AdvanceTail(const FrontArgs& a, const FrontStream& s, Unit u,
                                            const Row& r) {
  const int64_t channels = static_cast<int64_t>(s.heads) * s.width;
  float* tail = r.states + s.tail;
  float x[2 * kHalf];
  for (int j = 0; j < a.taps - 1; ++j) {
    LoadInput<kHalf>(a, s, u, r, a.taps - 2 - j, x);
    StoreHalf<kHalf>(tail + j * channels + u.c0, x);
    if (u.second) StoreHalf<kHalf>(tail + j * channels + u.c1, x + kHalf);
  }
}

// log decays, and keys where the decay makes them, of a unit of k.
template <int kHalf>
__device__ __forceinline__ void KeyGates(const FrontArgs& a, Unit u, const Row& r,
                                         float (&x)[2 * kHalf]) {
  const int channels = a.streams[1].heads * a.streams[1].width;
  float* log_decay = a.log_decay + r.row * channels + u.c0;
  float* log_sum = r.states + a.log_sum + u.c0;
#pragma unroll
  for (int i = 0; i < 2 * kHalf; ++i) {
    if (i >= kHalf && !u.second) break;
    if (a.gate == GateMap::kHgrn2) {
      const mixer_math::KeyGate gate =
          mixer_math::Hgrn2Gate(x[i], a.lower_bound == nullptr ? 0.0f : a.lower_bound[u.c0 + i]);
      log_decay[i] = gate.log_decay;
      x[i] = gate.key;
    } else {
      const mixer_math::LightNetGate gate =
          mixer_math::LightNetStep(x[i], log_sum[i], r.position == 0);
      log_sum[i] = gate.log_sum;
      log_decay[i] = gate.log_decay;
      x[i] = gate.key;
    }
  }
}

// Writes a unit after its turn by the row's position.
template <int kHalf, class T>
__device__ __forceinline__ void StoreUnit(const FrontArgs& a, const FrontStream& s, Unit u,
                                          const Row& r, const double (&frequency)[kHalf],
                                          float (&x)[2 * kHalf], T* front) {
  const int head = u.c0 / s.width, c = u.c0 - head * s.width;
  T* to = front + s.to + head * s.to_width + c;
  if (s.rope == Rope::kHalves) {
#pragma unroll
    for (int i = 0; i < kHalf; ++i)
      mixer_math::Rotate(mixer_math::RotationAt(frequency[i], r.position), &x[i], &x[kHalf + i]);
  }
  if (s.rope == Rope::kLrpe) {
    float sines[2 * kHalf];
    const float* theta = a.theta + u.c0;
#pragma unroll
    for (int i = 0; i < 2 * kHalf; ++i) {
      if (i >= kHalf && !u.second) break;
      const mixer_math::Rotation turn = mixer_math::RotationAt(theta[i], r.position);
      sines[i] = x[i] * turn.sin;
      x[i] *= turn.cos;
    }
    StoreHalf<kHalf>(to + s.width, sines);
    if (u.second) StoreHalf<kHalf>(to + s.width + kHalf, sines + kHalf);
  }
  StoreHalf<kHalf>(to, x);
  if (u.second) StoreHalf<kHalf>(to + u.c1 - u.c0, x + kHalf);
}

template <int kHalf>
__device__ __forceinline__ void StateGates(const FrontArgs& a, Unit u, const Row& r) {
  const bf16* in = a.in + r.row * a.in_stride;
  const int end = min(u.c0 + 2 * kHalf, a.state_heads);
  for (int h = u.c0; h < end; ++h) {
    const int64_t at = r.row * a.state_heads + h;
    if (a.beta != nullptr)
      a.beta[at] = a.beta_max * mixer_math::Sigmoid(__bfloat162float(in[a.beta_column + h]));
    if (!DecaysStates(a)) continue;
    const float raw = __bfloat162float(in[a.gate_column + h]);
    const float bias = a.gate_bias == nullptr ? 0.0f : a.gate_bias[h];
    if (a.gate == GateMap::kGla) {
      a.log_decay[at] = mixer_math::GlaLogDecay(raw + bias, a.clamp_log_gate, a.log_gate_min);
    } else if (a.gate == GateMap::kGatedDelta) {
      a.loss[at] = expm1f(mixer_math::GatedDeltaLogDecay(raw, bias, a.a_log[h]));
    } else {
      const mixer_math::Mamba2Gate gate =
          mixer_math::Mamba2Step(raw, bias, a.a_log[h], a.dt_min, a.dt_max);
      a.log_decay[at] = gate.log_decay;
      a.key_scale[at] = gate.dt;
    }
  }
}

// A thread's work: one unit of as many rows as it is given.
template <class T, int kHalf>
class UnitRunner {
 public:
  __device__ UnitRunner(const FrontArgs& a, int index) : a_(a), u_(UnitOf<kHalf>(a, index)) {
    if (u_.stream > 2) return;
    const FrontStream& s = a.streams[u_.stream];
    if (a.taps > 0 && s.conv != nullptr) weights_.Load(a, s, u_);
    if (s.rope == Rope::kHalves) {
#pragma unroll
      for (int i = 0; i < kHalf; ++i) {
        const double pair = u_.c0 % s.width + i;
        frequency_[i] = exp(-2.0 * pair / s.width * a.log_rope_theta);
      }
    }
  }

  // Writes the row's unit to `front`, the row of that name.
  __device__ __forceinline__ void Run(const Row& r, T* front) const {
    if (u_.stream == 3) StateGates<kHalf>(a_, u_, r);
    if (u_.stream > 2) return;
    const FrontStream& s = a_.streams[u_.stream];
    float x[2 * kHalf];
    if (a_.taps > 0 && s.conv != nullptr) {
      Convolve<kHalf>(a_, s, u_, r, weights_, x);
    } else {
      LoadColumns<kHalf>(a_, s, u_, r.row, x);
    }
    if (u_.stream == 1 && a_.gate == GateMap::kLightNet && sizeof(T) == 2) {
      // Waits for the sums of the tokens before (LogSumKernel).
      float* raw = a_.log_decay + r.row * s.heads * s.width + u_.c0;
      StoreHalf<kHalf>(raw, x);
      if (u_.second) StoreHalf<kHalf>(raw + kHalf, x + kHalf);
      return;
    }
    if (u_.stream == 1 && (a_.gate == GateMap::kHgrn2 || a_.gate == GateMap::kLightNet)) {
      KeyGates<kHalf>(a_, u_, r, x);
    } else {
#pragma unroll
      for (int i = 0; i < 2 * kHalf; ++i) x[i] = Map(s.map, x[i]) * s.scale;
    }
    StoreUnit<kHalf>(a_, s, u_, r, frequency_, x, front);
  }

  __device__ __forceinline__ void MoveTail(const Row& r) const {
    if (u_.stream <= 2 && a_.taps > 1 && a_.streams[u_.stream].conv != nullptr)
      AdvanceTail<kHalf>(a_, a_.streams[u_.stream], u_, r);
  }

 private:
  const FrontArgs& a_;
  const Unit u_;
  ConvWeights<kHalf> weights_;
  double frequency_[kHalf] = {};
};

template <int kHalf>
__global__ void __launch_bounds__(kThreads) FrontDecodeKernel(const __grid_constant__ FrontArgs a) {
  const int row = blockIdx.x;
  const UnitRunner<float, kHalf> unit(a, blockIdx.y * kThreads + threadIdx.x);
  WaitForPredecessor();
  if (row >= a.meta->num_decode) return;
  const RowMeta meta = MetaArray<RowMeta>(a.meta, a.meta->rows)[row];
  const Row r = {row, meta.position, 0, a.states + meta.slot * a.slot_stride};
  unit.Run(r, a.decode_front + row * a.front_stride);
  unit.MoveTail(r);
}

// Finds where prompt rows leave T.
__device__ __forceinline__ void FrontOf(const FrontArgs& a, bf16** front) {
  *front = a.prompt_front;
}
__device__ __forceinline__ void FrontOf(const FrontArgs& a, float** front) {
  *front = a.wide_prompt_front;
}

template <class T, int kHalf>
__global__ void __launch_bounds__(kThreads) FrontPromptKernel(const __grid_constant__ FrontArgs a) {
  const UnitRunner<T, kHalf> unit(a, blockIdx.y * kThreads + threadIdx.x);
  WaitForPredecessor();
  constexpr int kParts = kChunk / kTokens;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.x / kParts];
  const int first = blockIdx.x % kParts * kTokens, end = min(first + kTokens, chunk.tokens);
  float* states = a.states + chunk.slot * a.slot_stride;
  T* front = nullptr;
  FrontOf(a, &front);
  for (int token = first; token < end; ++token) {
    const int64_t row = static_cast<int64_t>(chunk.row) + token;
    unit.Run({row, chunk.position + token, chunk.offset + token, states},
             front + row * a.front_stride);
  }
}

// The tails after the segments that end with a chunk. Each entry comes from a later one or from the
// step, in this order.
template <int kHalf>
__global__ void __launch_bounds__(kThreads) TailsKernel(const __grid_constant__ FrontArgs a) {
  WaitForPredecessor();
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.x];
  const Unit u = UnitOf<kHalf>(a, blockIdx.y * kThreads + threadIdx.x);
  if (!chunk.last || u.stream > 2 || a.streams[u.stream].conv == nullptr) return;
  const Row r = {static_cast<int64_t>(chunk.row) + chunk.tokens - 1,
                 chunk.position + chunk.tokens - 1, chunk.offset + chunk.tokens - 1,
                 a.states + chunk.slot * a.slot_stride};
  AdvanceTail<kHalf>(a, a.streams[u.stream], u, r);
}

// ---- LightNet's sums over a prompt: of each chunk, then before each chunk, then of each token
// ----

__device__ __forceinline__ float RawKey(const FrontArgs& a, const ChunkMeta& chunk, int token,
                                        int c, int channels) {
  return a.log_decay[(static_cast<int64_t>(chunk.row) + token) * channels + c];
}

__global__ void __launch_bounds__(kThreads) LogSumKernel(const __grid_constant__ FrontArgs a) {
  WaitForPredecessor();
  const int channels = a.streams[1].heads * a.streams[1].width;
  const int c = blockIdx.y * kThreads + threadIdx.x;
  if (c >= channels) return;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.x];
  float sum = 0.0f;
  for (int token = 0; token < chunk.tokens; ++token)
    sum = mixer_math::LightNetStep(RawKey(a, chunk, token, c, channels), sum, token == 0).log_sum;
  a.log_sums[static_cast<int64_t>(blockIdx.x) * channels + c] = sum;
}

// By the blocks of each segment's first chunk.
__global__ void __launch_bounds__(kThreads) LogSumScanKernel(const __grid_constant__ FrontArgs a) {
  WaitForPredecessor();
  const int channels = a.streams[1].heads * a.streams[1].width;
  const int c = blockIdx.y * kThreads + threadIdx.x;
  const ChunkMeta* chunks = MetaArray<ChunkMeta>(a.meta, a.meta->chunks) + blockIdx.x;
  if (c >= channels || chunks[0].offset != 0) return;
  float* slot = a.states + chunks[0].slot * a.slot_stride + a.log_sum + c;
  float* sums = a.log_sums + static_cast<int64_t>(blockIdx.x) * channels + c;
  float before = *slot;
  for (int i = 0;; ++i) {
    const float sum = sums[static_cast<int64_t>(i) * channels];
    sums[static_cast<int64_t>(i) * channels] = before;
    before = mixer_math::LightNetStep(sum, before, chunks[i].position == 0).log_sum;
    if (chunks[i].last) break;
  }
  *slot = before;
}

__global__ void __launch_bounds__(kThreads) LogSumKeysKernel(const __grid_constant__ FrontArgs a) {
  WaitForPredecessor();
  const int channels = a.streams[1].heads * a.streams[1].width;
  const int c = blockIdx.y * kThreads + threadIdx.x;
  if (c >= channels) return;
  const ChunkMeta chunk = MetaArray<ChunkMeta>(a.meta, a.meta->chunks)[blockIdx.x];
  float sum = a.log_sums[static_cast<int64_t>(blockIdx.x) * channels + c];
  for (int token = 0; token < chunk.tokens; ++token) {
    const int64_t row = static_cast<int64_t>(chunk.row) + token;
    const mixer_math::LightNetGate gate = mixer_math::LightNetStep(
        RawKey(a, chunk, token, c, channels), sum, chunk.position + token == 0);
    sum = gate.log_sum;
    a.log_decay[row * channels + c] = gate.log_decay;
    a.prompt_front[row * a.front_stride + a.streams[1].to + c] = __float2bfloat16_rn(gate.key);
  }
}

bool HasConvolution(const FrontArgs& a) {
  bool has = false;
  for (const FrontStream& s : a.streams) has |= s.conv != nullptr;
  return has && a.taps > 1;
}

template <int kHalf>
cudaError_t LaunchDecode(const FrontArgs& args, int grid_rows, cudaStream_t stream) {
  const dim3 grid(grid_rows, (Units<kHalf>(args) + kThreads - 1) / kThreads);
  return Launch(FrontDecodeKernel<kHalf>, grid, kThreads, 0, stream, 1, args);
}
template <int kHalf>
cudaError_t LaunchPrompts(const FrontArgs& args, int chunks, cudaStream_t stream) {
  const int blocks = (Units<kHalf>(args) + kThreads - 1) / kThreads;
  const dim3 grid(chunks * (kChunk / kTokens), blocks);
  const auto kernel = args.wide_prompt_front == nullptr ? FrontPromptKernel<bf16, kHalf>
                                                        : FrontPromptKernel<float, kHalf>;
  const cudaError_t error = Launch(kernel, grid, kThreads, 0, stream, 1, args);
  if (error != cudaSuccess || !HasConvolution(args)) return error;
  return Launch(TailsKernel<kHalf>, dim3(chunks, blocks), kThreads, 0, stream, 1, args);
}

}  // namespace

cudaError_t LaunchFrontDecode(const FrontArgs& args, int grid_rows, cudaStream_t stream) {
  return args.plain ? LaunchDecode<1>(args, grid_rows, stream)
                    : LaunchDecode<4>(args, grid_rows, stream);
}

cudaError_t LaunchFrontPrompts(const FrontArgs& args, int chunks, cudaStream_t stream) {
  cudaError_t error =
      args.plain ? LaunchPrompts<1>(args, chunks, stream) : LaunchPrompts<4>(args, chunks, stream);
  if (args.gate != GateMap::kLightNet) return error;
  const int channels = args.streams[1].heads * args.streams[1].width;
  const dim3 grid(chunks, (channels + kThreads - 1) / kThreads);
  for (const auto kernel : {LogSumKernel, LogSumScanKernel, LogSumKeysKernel})
    if (error == cudaSuccess) error = Launch(kernel, grid, kThreads, 0, stream, 1, args);
  return error;
}

}  // namespace sluice::cuda
