#include "kernels/cuda/softmax_mixer.h"

#include "kernels/cores.h"
#include "kernels/cuda/layout.h"

namespace sluice::cuda {
namespace {

int32_t Int(int64_t value) { return static_cast<int32_t>(value); }

}  // namespace

SoftmaxMixer::SoftmaxMixer(const MixArgs& args, const LinearMixer::Slots& slots,
                           const PageStore& pages, const LinearWorkspace& work,
                           const StepHeader* meta, cudaStream_t stream)
    : mix_(args), work_(work), stream_(stream), back_(MakeBack(args, nullptr)) {
  const MixerSpec& s = *args.spec;
  const MixerWeights& w = *args.weights;
  SoftmaxArgs& c = core_;
  c.meta = meta;
  c.in = static_cast<const __nv_bfloat16*>(args.in.data);
  c.in_stride = Stride(args.in.cols);
  c.q_column = Int(s.q.offset);
  c.k_column = Int(s.k.offset);
  c.v_column = Int(s.v.offset);
  c.q_heads = Int(s.q_heads);
  c.kv_heads = Int(s.k_heads);
  c.dk = Int(s.dk);
  c.dv = Int(s.dv);
  c.window = s.window;
  if (s.q_norm == QkNorm::kRms) c.q_norm = w.q_norm.data;
  if (s.k_norm == QkNorm::kRms) c.k_norm = w.k_norm.data;
  c.norm_eps = s.qk_norm_eps;
  if (s.rope == Rope::kTable) {
    c.theta = w.theta.data;
    c.rope_dims = Int(s.rope_dims);
    c.rope_divisor = s.rope_divisor;
    c.rope_scale = s.rope_scale;
  }
  c.scale = s.q_scale;
  c.front = work.prompt_front();
  c.front_stride = FrontStride(s);
  if (s.window > 0) {
    const auto part = [&](StatePartKind kind) {
      return reinterpret_cast<float*>(slots.first + slots.table->Find(args.layer, kind)->offset);
    };
    c.ring_keys = part(StatePartKind::kKeys);
    c.ring_values = part(StatePartKind::kValues);
    c.slot_stride = slots.bytes / static_cast<int64_t>(sizeof(float));
  } else {
    const PageStore::Place* keys = pages.Find(args.layer, StatePartKind::kKeys);
    const PageStore::Place* values = pages.Find(args.layer, StatePartKind::kValues);
    c.pages = pages.pages() + keys->offset;
    c.page_stride = pages.page_elements();
    c.key_row = keys->row;
    c.value_row = values->row;
    c.values_in_page = values->offset - keys->offset;
  }
  c.parts = work.softmax_parts();

  layer_.meta = meta;
  layer_.prompt_front = c.front;
  layer_.front_stride = c.front_stride;
  layer_.q_heads = layer_.out_heads = layer_.state_heads = layer_.v_heads = c.q_heads;
  layer_.dk = c.dk;
  layer_.dv = c.dv;
  layer_.plain = PlainOnCuda(s);
}

cudaError_t SoftmaxMixer::Run(int decode, int chunks, int prompts) {
  cudaError_t error = LaunchSoftmaxFront(core_, decode, chunks, stream_);
  const LinearDecodeBuffers buffers = work_.decode();
  if (error == cudaSuccess && decode > 0)
    error = LaunchSoftmaxDecode(core_, buffers.o, decode, stream_);
  if (error == cudaSuccess && decode > 0)
    error = LaunchPlainDecodeBack(layer_, back_, buffers, decode, stream_);
  if (error != cudaSuccess || prompts == 0) return error;
  error = LaunchSoftmaxPrompts(core_, back_.out, back_.out_stride, chunks, stream_);
  const bool whole = back_.norm == BackNorm::kNone && back_.gate == BackGate::kNone;
  if (error != cudaSuccess || whole) return error;
  return layer_.plain ? LaunchPlainBack(layer_, back_, {}, decode, prompts, stream_)
                      : LaunchLinearBack(layer_, back_, {}, decode, prompts, stream_);
}

}  // namespace sluice::cuda
