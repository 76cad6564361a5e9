#include "kernels/cuda/step_runner.h"

#include <algorithm>
#include <cmath>
#include <utility>

#include "kernels/cuda/layout.h"
#include "kernels/cuda/rows.h"
#include "kernels/cuda/sampler.h"

namespace sluice::cuda {
namespace {

using Bf16 = __nv_bfloat16;

int64_t GateUpRows(int64_t intermediate) {
  return (intermediate + kGateUpBlock - 1) / kGateUpBlock * 2 * kGateUpBlock;
}

// The norm that an op begins with, of the residual stream and for all rows.
const Vector* NormOf(const Op& op) {
  if (const auto* project = std::get_if<NormProjectArgs>(&op)) return &project->norm;
  if (const auto* gate_up = std::get_if<NormGateUpArgs>(&op)) return &gate_up->norm;
  return nullptr;
}

}  // namespace

void StepRunner::Run(const std::vector<Op>& ops, const StepView& step) {
  step_ = step;
  normed_before_ = false;
  for (size_t i = 0; i < ops.size() && latch_.ok(); ++i) {
    next_norm_ = i + 1 < ops.size() ? NormOf(ops[i + 1]) : nullptr;
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
  gemm.n = static_cast<int>(p.store == RowStore::kSwiGlu ? GateUpRows(p.y_cols) : p.weight.n);
  gemm.n_valid = static_cast<int>(p.y_cols);
  gemm.store = p.store;
  if (p.normed_before) {
    gemm.squares = work_.squares();
    gemm.norm_width = static_cast<int>(p.x_cols);
    gemm.norm_eps = shape_.norm_eps;
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
  gemm.n = p.weight.n;
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
  Check(LaunchSwiGlu(static_cast<const Bf16*>(gemm.y), gemm.y_stride, p.y_cols,
                     static_cast<Bf16*>(p.y) + first * Stride(p.y_cols), static_cast<int>(rows),
                     stream_),
        "the SwiGLU");
}

void StepRunner::Multiply(const Product& product) {
  const int32_t streamed = streamed_rows();
  MultiplyRows(product, streamed);
  MultiplyMany(product, streamed, all_rows() - streamed);
}

// ---- Ops ----

void StepRunner::Do(const EmbedArgs& args) {
  Check(LaunchEmbed(step_.meta, static_cast<const Bf16*>(args.table.data), args.table.n,
                    shape_.hidden, work_.last_sampled(), static_cast<float*>(args.x.data),
                    all_rows(), stream_),
        "embedding");
}

void StepRunner::Norm(const Activation& x, const Vector& norm) {
  const int32_t first = normed_before_ ? streamed_rows() : 0, rows = all_rows() - first;
  if (rows == 0) return;
  Check(LaunchRmsNorm(step_.meta, first, static_cast<const float*>(x.data), norm.data, x.cols,
                      shape_.norm_eps, work_.normed(), rows, stream_),
        "the norm");
}

template <class Args>
void StepRunner::NormMultiply(const Args& args, RowStore store) {
  Norm(args.x, args.norm);
  Multiply({.x = work_.normed(),
            .x_cols = args.x.cols,
            .weight = args.weight,
            .y = args.y.data,
            .y_cols = args.y.cols,
            .y_bytes = 2,
            .store = store,
            .normed_before = std::exchange(normed_before_, false)});
}

void StepRunner::Do(const NormProjectArgs& args) { NormMultiply(args, RowStore::kBf16); }

void StepRunner::Do(const NormGateUpArgs& args) { NormMultiply(args, RowStore::kSwiGlu); }

void StepRunner::Do(const ProjectAddArgs& args) {
  const bool leaves = next_norm_ != nullptr && streamed_rows() > 0 && GemmRowsTakesNorms();
  Multiply({.x = static_cast<const Bf16*>(args.a.data),
            .x_cols = args.a.cols,
            .weight = args.weight,
            .y = args.x.data,
            .y_cols = args.x.cols,
            .y_bytes = 4,
            .store = RowStore::kAdd,
            .next_norm = leaves ? next_norm_->data : nullptr});
  normed_before_ = leaves;
}

MixerArgs StepRunner::ShapeArgs(const ModelShape& s) {
  MixerArgs m;
  m.heads = static_cast<int32_t>(s.heads);
  m.kv_heads = static_cast<int32_t>(s.kv_heads);
  m.dk = static_cast<int32_t>(s.dk);
  m.dv = static_cast<int32_t>(s.dv);
  m.rank = static_cast<int32_t>(s.gate_rank);
  m.taps = static_cast<int32_t>(s.conv_size);
  m.k_offset = static_cast<int32_t>(s.k_offset());
  m.v_offset = static_cast<int32_t>(s.v_offset());
  m.gate_offset = static_cast<int32_t>(s.gate_offset());
  m.g_offset = static_cast<int32_t>(s.g_offset());
  m.output_gate = s.output_gate;
  m.feature_map = s.feature_map;
  m.scale = 1.0f / std::sqrt(static_cast<float>(s.dk));
  m.min_log_decay2 = kMinLogDecay2;
  if (s.clamp_log_gate) {
    m.min_log_decay2 = std::max(m.min_log_decay2, s.log_gate_min * 1.4426950408889634f);
  }
  m.eps = s.norm_eps;
  return m;
}

void StepRunner::Do(const MixArgs& args) {
  MixerArgs m = ShapeArgs(shape_);
  m.meta = step_.meta;
  m.in = static_cast<const Bf16*>(args.in.data);
  m.in_stride = Stride(args.in.cols);
  m.gate = static_cast<const Bf16*>(args.gate.data);
  m.gate_stride = Stride(args.gate.k);
  m.gate_bias = args.gate_bias.data;
  m.conv_q = args.conv_q.data;
  m.conv_k = args.conv_k.data;
  m.conv_v = args.conv_v.data;
  m.head_norm = args.head_norm.size > 0 ? args.head_norm.data : nullptr;
  m.out = static_cast<Bf16*>(args.out.data);
  m.out_stride = Stride(args.out.cols);
  m.states = work_.Slot(0) + args.layer * (work_.slot_floats() / shape_.layers);
  m.slot_stride = work_.slot_floats();
  for (const StatePart& part : work_.layout().parts) {
    if (part.layer != 0) break;
    if (part.kind == StatePartKind::kConvQ) m.tail_q = part.offset;
    if (part.kind == StatePartKind::kConvK) m.tail_k = part.offset;
    if (part.kind == StatePartKind::kConvV) m.tail_v = part.offset;
  }
  if (step_.decode > 0) Check(LaunchGlaDecode(m, step_.decode, stream_), "the decode mixer");
  if (step_.plan->num_prompt > 0 && latch_.ok()) PromptMixer(m);
}

void StepRunner::PromptMixer(const MixerArgs& mixer) {
  const ChunkBuffers& chunks = work_.chunks();
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
    Check(LaunchRmsNormGather(step_.meta, first, static_cast<const float*>(args.x.data),
                              args.norm.data, args.x.cols, shape_.norm_eps, work_.normed(), rows,
                              stream_),
          "the norm");
    const Product product = {.x = work_.normed(),
                             .x_cols = args.x.cols,
                             .weight = args.weight,
                             .y = work_.logits(),
                             .y_cols = shape_.vocab,
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
    sampler.stride = Stride(shape_.vocab);
    sampler.adjusted = work_.adjusted();
    sampler.vocab = static_cast<int32_t>(shape_.vocab);
    sampler.last_sampled = work_.last_sampled();
    sampler.counts = work_.Counts(0);
    Check(LaunchSampler(sampler, rows, stream_), "the sampler");
    if (step_.rows != nullptr) CopyLogits(*step_.rows, first, rows);
  }
}

void StepRunner::CopyLogits(const StepRows& rows, int32_t first, int32_t count) {
  for (int32_t i = first; i < std::min(first + count, rows.num_logits); ++i) {
    if (rows.logits[i].logits_out == nullptr) continue;
    Check(cudaMemcpyAsync(rows.logits[i].logits_out,
                          work_.logits() + (i - first) * Stride(shape_.vocab), shape_.vocab * 4,
                          cudaMemcpyDeviceToHost, stream_),
          "copying logits");
  }
}

}  // namespace sluice::cuda
