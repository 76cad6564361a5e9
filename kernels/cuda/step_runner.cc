#include "kernels/cuda/step_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/check.h"
#include "kernels/cores.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/linear_mixer.h"
#include "kernels/cuda/row_ops.h"
#include "kernels/cuda/sampler.h"
#include "kernels/cuda/softmax_mixer.h"

namespace sluice::cuda {
namespace {

using Bf16 = __nv_bfloat16;

int64_t GateUpRows(int64_t intermediate) {
  return (intermediate + kGateUpBlock - 1) / kGateUpBlock * 2 * kGateUpBlock;
}

}  // namespace

void StepRunner::Run(const std::vector<Op>& ops, const StepView& step) {
  step_ = step;
  left_norm_ = nullptr;
  for (size_t i = 0; i < ops.size() && latch_.ok(); ++i) {
    std::visit([&](const auto& args) { Do(args); }, ops[i]);
  }
}

// ---- Products ----

void StepRunner::MultiplyRows(const Product& p, int64_t rows) {
  if (rows == 0) return;
  GemmRowsArgs gemm;
  gemm.x = p.x;
  gemm.x_stride = Stride(p.x_cols);
  gemm.w = static_cast<const Bf16*>(p.weight.data);
  gemm.y = p.y;
  gemm.y_stride = Stride(p.y_cols);
  gemm.rows = static_cast<int>(rows);
  gemm.n = static_cast<int>(p.store == RowStore::kSwiGlu ? GateUpRows(p.y_cols) : p.y_cols);
  gemm.n_valid = static_cast<int>(p.y_cols);
  gemm.store = p.store;
  if (p.norm_before != nullptr) {
    gemm.squares = work_.squares();
    gemm.norm_width = static_cast<int>(p.x_cols);
    gemm.norm_eps = p.norm_before->eps;
  }
  if (p.next_norm != nullptr) {
    gemm.next_norm = p.next_norm;
    gemm.next_x = work_.normed();
    gemm.next_squares = work_.squares();
  }
  Check(LaunchGemmRows(gemm, stream_), "a product");
}

void StepRunner::MultiplyMany(const Product& p, int64_t first, int64_t rows) {
  if (rows == 0) return;
  LtGemm gemm;
  gemm.k = Stride(p.x_cols);
  gemm.x = p.x + first * gemm.k;
  gemm.w = static_cast<const Bf16*>(p.weight.data);
  gemm.rows = rows;
  gemm.n = p.y_cols;
  gemm.y_stride = Stride(p.y_cols);
  gemm.y = static_cast<char*>(p.y) + first * gemm.y_stride * p.y_bytes;
  gemm.store = p.store == RowStore::kAdd     ? LtStore::kAdd
               : p.store == RowStore::kFloat ? LtStore::kFloat
                                             : LtStore::kBf16;
  if (p.store != RowStore::kSwiGlu) {
    latch_.Check(lt_->Run(gemm, stream_));
    return;
  }
  gemm.n = GateUpRows(p.y_cols);
  gemm.y_stride = Stride(gemm.n);
  gemm.y = work_.gate_up() + first * gemm.y_stride;
  if (!latch_.Check(lt_->Run(gemm, stream_))) return;
  GluArgs glu;
  glu.in = static_cast<const Bf16*>(gemm.y);
  glu.in_stride = gemm.y_stride;
  glu.intermediate = p.y_cols;
  glu.y = static_cast<Bf16*>(p.y) + first * Stride(p.y_cols);
  Check(LaunchGlu(glu, static_cast<int>(rows), stream_), "the SwiGLU");
}

void StepRunner::Multiply(const Product& product) {
  const int32_t streamed = streamed_rows();
  MultiplyRows(product, streamed);
  MultiplyMany(product, streamed, all_rows() - streamed);
}

// ---- Ops ----

void StepRunner::Do(const EmbedArgs& args) {
  Check(LaunchEmbed(step_.meta, static_cast<const Bf16*>(args.table.data), args.table.n,
                    args.x.cols, args.scale, work_.last_sampled(), static_cast<float*>(args.x.data),
                    all_rows(), stream_),
        "embedding");
}

void StepRunner::NormRows(const Activation& x, const StreamNorm& norm) {
  // The model's plan says which norm comes next: it is this one.
  SLUICE_CHECK(left_norm_ == nullptr || left_norm_->weight.data == norm.weight.data);
  const int32_t first = left_norm_ != nullptr ? streamed_rows() : 0, rows = all_rows() - first;
  if (rows == 0) return;
  const auto* data = static_cast<const float*>(x.data);
  const float eps = norm.norm.eps;
  Check(norm.norm.kind == NormKind::kLayer
            ? LaunchLayerNorm(step_.meta, first, data, WeightOf(norm), norm.bias.data, x.cols, eps,
                              work_.normed(), rows, stream_)
            : LaunchRmsNorm(step_.meta, first, data, WeightOf(norm), x.cols, eps, work_.normed(),
                            rows, stream_),
        "the norm");
}

template <class Args>
void StepRunner::NormMultiply(const Args& args, const Activation& y, RowStore store) {
  NormRows(args.x, args.norm);
  Multiply({.x = work_.normed(),
            .x_cols = args.x.cols,
            .weight = args.weight,
            .y = y.data,
            .y_cols = y.cols,
            .y_bytes = 2,
            .store = store,
            .norm_before = left_norm_ == nullptr ? nullptr : &left_norm_->norm});
}

void StepRunner::Do(const NormProjectArgs& args) {
  NormMultiply(args, args.y, RowStore::kBf16);
  if (args.bias.size == 0) return;
  Check(LaunchAddBias(static_cast<Bf16*>(args.y.data), Stride(args.y.cols), args.bias.data,
                      args.y.cols, all_rows(), stream_),
        "a bias");
}

void StepRunner::Do(const NormGateUpArgs& args) {
  const bool biased = args.gate_bias.size > 0 || args.up_bias.size > 0;
  if (args.act == Act::kSilu && !biased) {
    NormMultiply(args, args.y, RowStore::kSwiGlu);
    return;
  }
  // The products' own end knows SwiGLU alone.
  const int64_t both = GateUpRows(args.y.cols);
  NormMultiply(args, {work_.gate_up(), args.y.rows, both}, RowStore::kBf16);
  GluArgs glu;
  glu.in = work_.gate_up();
  glu.in_stride = Stride(both);
  glu.intermediate = args.y.cols;
  glu.act = args.act;
  if (args.gate_bias.size > 0) glu.gate_bias = args.gate_bias.data;
  if (args.up_bias.size > 0) glu.up_bias = args.up_bias.data;
  glu.y = static_cast<Bf16*>(args.y.data);
  Check(LaunchGlu(glu, all_rows(), stream_), "the gated linear unit");
}

void StepRunner::Do(const ProjectAddArgs& args) {
  const bool leaves = args.next_norm != nullptr && args.next_norm->norm.kind == NormKind::kRms &&
                      streamed_rows() > 0 && GemmRowsTakesNorms();
  if (args.bias.size > 0) {
    Check(LaunchAddBias(static_cast<float*>(args.x.data), Stride(args.x.cols), args.bias.data,
                        args.x.cols, all_rows(), stream_),
          "a bias");
  }
  Multiply({.x = static_cast<const Bf16*>(args.a.data),
            .x_cols = args.a.cols,
            .weight = args.weight,
            .y = args.x.data,
            .y_cols = args.x.cols,
            .y_bytes = 4,
            .store = RowStore::kAdd,
            .next_norm = leaves ? WeightOf(*args.next_norm) : nullptr});
  left_norm_ = leaves ? args.next_norm : nullptr;
}

MixerLaunch StepRunner::GlaArgs(const MixerSpec& s) {
  MixerLaunch m;
  m.heads = static_cast<int32_t>(s.q_heads);
  m.kv_heads = static_cast<int32_t>(s.state_heads);
  m.dk = static_cast<int32_t>(s.dk);
  m.dv = static_cast<int32_t>(s.dv);
  m.rank = static_cast<int32_t>(s.gate_in.width);
  m.taps = static_cast<int32_t>(s.conv.taps);
  m.k_offset = static_cast<int32_t>(s.k.offset);
  m.v_offset = static_cast<int32_t>(s.v.offset);
  m.gate_offset = static_cast<int32_t>(s.gate_in.offset);
  m.g_offset = static_cast<int32_t>(s.out_gate.offset);
  m.output_gate = s.gated();
  m.feature_map = s.q_map;
  m.scale = s.q_scale;
  m.min_log_decay2 = kMinLogDecay2;
  if (s.clamp_log_gate) {
    m.min_log_decay2 = std::max(m.min_log_decay2, s.log_gate_min * 1.4426950408889634f);
  }
  m.eps = s.out_norm.eps;
  return m;
}

void StepRunner::Do(const MixArgs& args) {
  if (FusedGla(*args.spec)) {
    MixGla(args);
  } else if (args.spec->core == Core::kSoftmax) {
    MixSoftmax(args);
  } else {
    MixLinear(args);
  }
}

void StepRunner::MixLinear(const MixArgs& args) {
  const LinearMixer::Slots slots = {work_.Slot(0), work_.slot_bytes(), &work_.table()};
  LinearMixer mixer(args, slots, work_.linear(), work_.ChunksOf(*args.spec), step_.meta, stream_);
  Check(mixer.Run(step_.decode, step_.plan->waves, step_.plan->num_chunks, step_.plan->num_prompt),
        "the mixer");
}

void StepRunner::MixSoftmax(const MixArgs& args) {
  const LinearMixer::Slots slots = {work_.Slot(0), work_.slot_bytes(), &work_.table()};
  SoftmaxMixer mixer(args, slots, work_.pages(), work_.linear(), step_.meta, stream_);
  Check(mixer.Run(step_.decode, step_.plan->num_chunks, step_.plan->num_prompt), "the mixer");
}

void StepRunner::MixGla(const MixArgs& args) {
  const MixerWeights& w = *args.weights;
  MixerLaunch m = GlaArgs(*args.spec);
  m.meta = step_.meta;
  m.in = static_cast<const Bf16*>(args.in.data);
  m.in_stride = Stride(args.in.cols);
  m.gate = static_cast<const Bf16*>(w.gate.data);
  m.gate_stride = Stride(w.gate.k);
  m.gate_bias = w.gate_bias.data;
  m.conv_q = w.conv_q.data;
  m.conv_k = w.conv_k.data;
  m.conv_v = w.conv_v.data;
  m.head_norm = w.out_norm.size > 0 ? w.out_norm.data : nullptr;
  m.out = static_cast<Bf16*>(args.out.data);
  m.out_stride = Stride(args.out.cols);
  const StateTable& table = work_.table();
  const int64_t matrix = table.Find(args.layer, StatePartKind::kMatrix)->offset;
  const auto behind_matrix = [&](StatePartKind kind) {
    const StatePart* part = table.Find(args.layer, kind);
    return part == nullptr ? 0 : (part->offset - matrix) / static_cast<int64_t>(sizeof(float));
  };
  m.states = reinterpret_cast<float*>(work_.Slot(0) + matrix);
  m.slot_stride = work_.slot_bytes() / static_cast<int64_t>(sizeof(float));
  m.tail_q = behind_matrix(StatePartKind::kConvQ);
  m.tail_k = behind_matrix(StatePartKind::kConvK);
  m.tail_v = behind_matrix(StatePartKind::kConvV);
  if (step_.decode > 0) Check(LaunchGlaDecode(m, step_.decode, stream_), "the decode mixer");
  if (step_.plan->num_prompt > 0 && latch_.ok()) PromptMixer(*args.spec, m);
}

void StepRunner::PromptMixer(const MixerSpec& spec, const MixerLaunch& mixer) {
  const ChunkBuffers chunks = work_.ChunksOf(spec);
  ChunkRange all;
  all.chunks = step_.plan->num_chunks;
  if (mixer.taps > 0) {
    Check(LaunchShortConv(mixer, chunks, all, stream_), "the short convolution");
    if (mixer.taps > 1) Check(LaunchShortConvTails(mixer, all, stream_), "the short convolution");
  }
  for (const ChunkRange& wave : step_.plan->waves) {
    if (!latch_.ok()) return;
    Check(LaunchGlaScores(mixer, chunks, wave, stream_), "a prompt's scores");
    Check(LaunchGlaSpanSums(mixer, chunks, wave, stream_), "a prompt's sums");
    Check(LaunchGlaScan(mixer, chunks, wave, stream_), "a prompt's scan");
    Check(LaunchGlaChunks(mixer, chunks, wave, stream_), "a prompt's chunks");
  }
  Check(LaunchHeadNorm(mixer, chunks, step_.decode, step_.plan->num_prompt, stream_),
        "the head norm");
}

void StepRunner::Do(const LogitsArgs& args) {
  const int32_t tile = work_.logit_tile();
  for (int32_t first = 0; first < step_.logits && latch_.ok(); first += tile) {
    const int32_t rows = std::min(step_.logits - first, tile);
    const auto* x = static_cast<const float*>(args.x.data);
    const float eps = args.norm.norm.eps;
    Check(
        args.norm.norm.kind == NormKind::kLayer
            ? LaunchLayerNormGather(step_.meta, first, x, WeightOf(args.norm), args.norm.bias.data,
                                    args.x.cols, eps, work_.normed(), rows, stream_)
            : LaunchRmsNormGather(step_.meta, first, x, WeightOf(args.norm), args.x.cols, eps,
                                  work_.normed(), rows, stream_),
        "the norm");
    const Product product = {.x = work_.normed(),
                             .x_cols = args.x.cols,
                             .weight = args.weight,
                             .y = work_.logits(),
                             .y_cols = vocab_,
                             .y_bytes = 4,
                             .store = RowStore::kFloat};
    if (!batch_invariant_ && rows > kStreamRows) {
      MultiplyMany(product, 0, rows);
    } else {
      MultiplyRows(product, rows);
    }
    SamplerArgs sampler;
    sampler.meta = step_.meta;
    sampler.first = first;
    sampler.logits = work_.logits();
    sampler.stride = Stride(vocab_);
    sampler.adjusted = work_.adjusted();
    sampler.vocab = static_cast<int32_t>(vocab_);
    sampler.sampled = static_cast<int32_t>(sampled_tokens_);
    sampler.last_sampled = work_.last_sampled();
    sampler.counts = work_.Counts(0);
    Check(LaunchSampler(sampler, rows, stream_), "the sampler");
    if (step_.rows != nullptr) CopyLogits(*step_.rows, first, rows);
  }
}

void StepRunner::CopyLogits(const StepRows& rows, int32_t first, int32_t count) {
  for (int32_t i = first; i < std::min(first + count, rows.num_logits); ++i) {
    if (rows.logits[i].logits_out == nullptr) continue;
    Check(cudaMemcpyAsync(rows.logits[i].logits_out, work_.logits() + (i - first) * Stride(vocab_),
                          vocab_ * 4, cudaMemcpyDeviceToHost, stream_),
          "copying logits");
  }
}

}  // namespace sluice::cuda
