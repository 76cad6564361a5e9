#include "kernels/cuda/linear_mixer.h"

#include <cmath>

#include "kernels/cores.h"
#include "kernels/cuda/layout.h"

namespace sluice::cuda {
namespace {

using Bf16 = __nv_bfloat16;

int32_t Int(int64_t value) { return static_cast<int32_t>(value); }
const float* DataOf(const Vector& vector) { return vector.size > 0 ? vector.data : nullptr; }

LinearDecay DecayOf(Decay decay) {
  switch (decay) {
    case Decay::kNone:
      return LinearDecay::kNone;
    case Decay::kConst:
      return LinearDecay::kConst;
    case Decay::kHead:
      return LinearDecay::kHead;
    case Decay::kKey:
      return LinearDecay::kKey;
  }
  return LinearDecay::kNone;
}

BackGate GateOf(Act act) {
  switch (act) {
    case Act::kIdentity:
      return BackGate::kRaw;
    case Act::kSilu:
      return BackGate::kSilu;
    case Act::kSigmoid:
      return BackGate::kSigmoid;
    case Act::kSquaredRelu:  // an MLP's alone
      break;
  }
  return BackGate::kRaw;
}

BackNorm NormOf(NormKind kind) {
  switch (kind) {
    case NormKind::kNone:
      return BackNorm::kNone;
    case NormKind::kRms:
      return BackNorm::kRms;
    case NormKind::kLayer:
      return BackNorm::kLayer;
  }
  return BackNorm::kNone;
}

}  // namespace

LinearBack MakeBack(const MixArgs& args, const float* wide_gate) {
  const MixerSpec& s = *args.spec;
  const MixerWeights& w = *args.weights;
  LinearBack b;
  b.in = static_cast<const Bf16*>(args.in.data);
  b.in_stride = Stride(args.in.cols);
  b.gate_offset = Int(s.out_gate.offset);
  if (s.low_rank_gate) b.wide_gate = wide_gate;
  b.gate = s.gated() ? GateOf(s.out_act) : BackGate::kNone;
  b.gate_first = s.gate_before_norm;
  b.norm = NormOf(s.out_norm.kind);
  b.norm_span = Int(s.norm_span == NormSpan::kHead    ? s.dv
                    : s.norm_span == NormSpan::kGroup ? s.out_dim() / s.norm_groups
                                                      : s.out_dim());
  if (b.norm != BackNorm::kNone) {
    b.norm_weight = DataOf(w.out_norm);
    b.norm_bias = DataOf(w.out_norm_bias);
  }
  b.weight_width = Int(s.norm_span == NormSpan::kHead ? s.dv : s.out_dim());
  b.eps = s.out_norm.eps;
  if (s.skip != Skip::kNone) b.skip = w.skip.data;
  b.skip_channels = s.skip == Skip::kChannel;
  b.out = static_cast<Bf16*>(args.out.data);
  b.out_stride = Stride(args.out.cols);
  return b;
}

LinearMixer::LinearMixer(const MixArgs& args, const Slots& slots, const LinearWorkspace& work,
                         const ChunkBuffers& chunk, const StepHeader* meta, cudaStream_t stream)
    : mix_(args),
      spec_(*args.spec),
      weights_(*args.weights),
      work_(work),
      meta_(meta),
      stream_(stream),
      buffers_(work.prompts(chunk)) {
  SetFront(slots);
  SetMaps();
  SetCore(slots);
  back_ = MakeBack(mix_, work_.gate());
}

void LinearMixer::SetFront(const Slots& slots) {
  const MixerSpec& s = spec_;
  const auto part = [&](StatePartKind kind) {
    const StatePart* found = slots.table->Find(mix_.layer, kind);
    return found == nullptr ? 0 : found->offset / static_cast<int64_t>(sizeof(float));
  };
  FrontArgs& f = front_;
  f.meta = meta_;
  f.plain = PlainOnCuda(s);
  f.in = static_cast<const Bf16*>(mix_.in.data);
  f.in_stride = Stride(mix_.in.cols);
  const auto stream = [&](FrontStream* to, const Columns& columns, int64_t heads, int64_t width,
                          int64_t out, int64_t out_width, const Vector& conv, const Vector& bias,
                          StatePartKind tail) {
    to->column = Int(columns.offset);
    to->heads = Int(heads);
    to->width = Int(width);
    to->to = Int(out);
    to->to_width = Int(out_width);
    to->conv = s.conv.taps > 0 ? conv.data : nullptr;
    to->conv_bias = DataOf(bias);
    to->tail = part(tail);
  };
  const MixerWeights& w = weights_;
  const int64_t k_first = s.q_heads * s.dk, v_first = k_first + s.k_heads * s.dk;
  stream(&f.streams[0], s.q, s.q_heads, s.key_width, 0, s.dk, w.conv_q, w.conv_q_bias,
         StatePartKind::kConvQ);
  stream(&f.streams[1], s.k, s.k_heads, s.key_width, k_first, s.dk, w.conv_k, w.conv_k_bias,
         StatePartKind::kConvK);
  stream(&f.streams[2], s.v, s.v_heads, s.dv, v_first, s.dv, w.conv_v, w.conv_v_bias,
         StatePartKind::kConvV);
  f.streams[0].map = s.q_map;
  f.streams[1].map = s.k_map;
  f.streams[2].map = s.v_map;
  f.streams[0].rope = f.streams[1].rope = s.rope;
  f.streams[0].scale = s.q_scale;
  f.taps = Int(s.conv.taps);
  f.conv_silu = s.conv.silu;
  f.log_rope_theta = std::log(s.rope_theta);
  f.theta = w.theta.data;
  f.gate = s.gate;
  f.gate_column = Int(s.gate_in.offset);
  f.state_heads = Int(s.state_heads);
  f.gate_bias = DataOf(w.gate_bias);
  f.a_log = w.a_log.data;
  f.lower_bound = DataOf(w.lower_bound);
  f.dt_min = s.dt_min;
  f.dt_max = s.dt_max;
  f.clamp_log_gate = s.clamp_log_gate;
  f.log_gate_min = s.log_gate_min;
  f.log_sum = part(StatePartKind::kLogSum);
  f.states = reinterpret_cast<float*>(slots.first);
  f.slot_stride = slots.bytes / static_cast<int64_t>(sizeof(float));
  f.decode_front = work_.decode_front();
  f.prompt_front = work_.prompt_front();
  f.front_stride = FrontStride(s);
  f.log_decay = work_.log_decay();
  f.key_scale = work_.key_scale();
  f.log_sums = work_.log_sums();
  if (s.core != Core::kDelta) return;
  f.streams[0].scale = 1.0f;  // behind the norm
  f.decode_front = f.wide_prompt_front = work_.wide_front();
  f.beta_column = Int(s.beta.offset);
  f.beta_max = s.beta_max;
  if (s.beta.width > 0) f.beta = work_.beta();
  if (s.gate == GateMap::kGatedDelta) f.loss = work_.loss();
}

void LinearMixer::SetMaps() {
  if (spec_.core == Core::kDelta) return;  // has no maps of whole heads, and norms of its own
  const Linear* matrices[2][2] = {{&weights_.q_map, &weights_.q_map2},
                                  {&weights_.k_map, &weights_.k_map2}};
  const Vector* biases[2][2] = {{&weights_.q_map_bias, &weights_.q_map2_bias},
                                {&weights_.k_map_bias, &weights_.k_map2_bias}};
  for (int i = 0; i < 2; ++i) {
    const FrontStream& stream = front_.streams[i];
    MapArgs& m = maps_[i];
    m.meta = meta_;
    m.in = front_.in;
    m.in_stride = front_.in_stride;
    m.column = stream.column;
    m.plain = front_.plain;
    m.heads = stream.heads;
    m.width = stream.width;
    m.map = stream.map;
    m.norm = i == 0 ? spec_.q_norm : spec_.k_norm;
    m.scale = stream.scale;
    for (int matrix = 0; matrix < MapMatrices(m.map); ++matrix) {
      m.matrix[matrix] = static_cast<const Bf16*>(matrices[i][matrix]->data);
      m.matrix_stride = Stride(matrices[i][matrix]->k);
      m.bias[matrix] = DataOf(*biases[i][matrix]);
    }
    m.products = work_.map_products();
    m.decode_front = front_.decode_front;
    m.prompt_front = front_.prompt_front;
    m.front_stride = front_.front_stride;
    m.to = stream.to;
    m.to_width = stream.to_width;
    if (MapsHeads(m.map, m.norm)) front_.streams[i].heads = 0;  // front leaves it alone
  }
}

void LinearMixer::SetCore(const Slots& slots) {
  const MixerSpec& s = spec_;
  LinearArgs& c = core_;
  c.meta = meta_;
  c.decode_front = front_.decode_front;
  c.prompt_front = front_.prompt_front;
  c.front_stride = front_.front_stride;
  c.k_offset = front_.streams[1].to;
  c.v_offset = front_.streams[2].to;
  c.decay = DecayOf(s.decay);
  if (s.decay == Decay::kConst) c.log_decay = weights_.log_decay.data;
  if (s.decay == Decay::kHead || s.decay == Decay::kKey) c.log_decay = front_.log_decay;
  if (s.gate == GateMap::kMamba2) c.key_scale = front_.key_scale;
  const auto part = [&](StatePartKind kind) {
    return reinterpret_cast<float*>(slots.first + slots.table->Find(mix_.layer, kind)->offset);
  };
  c.states = part(StatePartKind::kMatrix);
  if (s.normaliser) c.normalisers = part(StatePartKind::kNormaliser);
  c.slot_stride = front_.slot_stride;
  c.q_heads = Int(s.q_heads);
  c.k_heads = Int(s.k_heads);
  c.v_heads = Int(s.v_heads);
  c.state_heads = Int(s.state_heads);
  c.out_heads = Int(s.heads());
  c.dk = Int(s.dk);
  c.dv = Int(s.dv);
  c.plain = front_.plain;
}

cudaError_t LinearMixer::MapHeads(int rows) {
  cudaError_t error = cudaSuccess;
  for (const MapArgs& map : maps_) {
    if (error == cudaSuccess && MapsHeads(map.map, map.norm))
      error = LaunchLinearMaps(map, rows, stream_);
  }
  if (error != cudaSuccess || !spec_.low_rank_gate) return error;
  GateProduct gate;
  gate.meta = meta_;
  gate.plain = front_.plain;
  gate.in = front_.in;
  gate.in_stride = front_.in_stride;
  gate.column = Int(spec_.out_gate.offset);
  gate.width = Int(spec_.out_gate.width);
  gate.matrix = static_cast<const Bf16*>(weights_.out_gate.data);
  gate.matrix_stride = Stride(weights_.out_gate.k);
  gate.bias = DataOf(weights_.out_gate_bias);
  gate.out = work_.gate();
  gate.out_width = Int(spec_.out_dim());
  return LaunchGateProduct(gate, rows, stream_);
}

DeltaArgs LinearMixer::Delta() const {
  DeltaArgs delta;
  delta.layer = core_;
  if (spec_.beta.width > 0) delta.beta = work_.beta();
  delta.beta_max = spec_.beta_max;
  if (spec_.decay != Decay::kNone) delta.loss = work_.loss();
  return delta;
}

cudaError_t LinearMixer::PrepareDelta(int rows) {
  DeltaNorms norms;
  norms.meta = meta_;
  norms.front = work_.wide_front();
  norms.stride = front_.front_stride;
  norms.q_heads = Int(spec_.q_heads);
  norms.k_heads = Int(spec_.k_heads);
  norms.dk = Int(spec_.dk);
  norms.q_norm = spec_.q_norm;
  norms.k_norm = spec_.k_norm;
  norms.q_scale = spec_.q_scale;
  cudaError_t error = LaunchDeltaNorms(norms, rows, stream_);
  if (error != cudaSuccess || spec_.decay != Decay::kKey) return error;
  GateProduct product;
  product.meta = meta_;
  product.plain = front_.plain;
  product.in = front_.in;
  product.in_stride = front_.in_stride;
  product.column = Int(spec_.gate_in.offset);
  product.width = Int(spec_.gate_in.width);
  product.matrix = static_cast<const Bf16*>(weights_.gate.data);
  product.matrix_stride = Stride(weights_.gate.k);
  product.bias = DataOf(weights_.gate_bias);
  product.out = work_.loss();
  product.out_width = Int(spec_.state_heads * spec_.dk);
  error = LaunchGateProduct(product, rows, stream_);
  if (error != cudaSuccess) return error;
  KdaGates gates;
  gates.meta = meta_;
  gates.loss = work_.loss();
  gates.a_log = weights_.a_log.data;
  gates.state_heads = Int(spec_.state_heads);
  gates.dk = Int(spec_.dk);
  gates.bounded = spec_.gate == GateMap::kKdaBounded;
  gates.log_gate_min = spec_.log_gate_min;
  return LaunchKdaGates(gates, rows, stream_);
}

cudaError_t LinearMixer::Run(int decode, std::span<const ChunkRange> waves, int chunks,
                             int prompts) {
  core_.front_rows = decode + prompts;
  cudaError_t error = MapHeads(decode + prompts);
  if (error == cudaSuccess && decode > 0) error = LaunchFrontDecode(front_, decode, stream_);
  if (spec_.core == Core::kDelta) {
    if (error == cudaSuccess && prompts > 0) error = LaunchFrontPrompts(front_, chunks, stream_);
    if (error == cudaSuccess) error = PrepareDelta(decode + prompts);
    if (error == cudaSuccess && decode > 0)
      error = LaunchDeltaDecode(Delta(), back_, work_.decode(), decode, stream_);
    if (error == cudaSuccess && prompts > 0)
      error = LaunchDeltaPrompts(Delta(), back_, chunks, decode, prompts, stream_);
    return error;
  }
  if (error == cudaSuccess && decode > 0)
    error = LaunchLinearDecode(core_, back_, work_.decode(), decode, stream_);
  if (error == cudaSuccess && prompts > 0) error = LaunchFrontPrompts(front_, chunks, stream_);
  if (error == cudaSuccess && prompts > 0)
    error = LaunchLinearPrompts(core_, back_, buffers_, waves, decode, prompts, stream_);
  return error;
}

}  // namespace sluice::cuda
