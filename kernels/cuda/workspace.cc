#include "kernels/cuda/workspace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cores.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/sampler.h"

namespace sluice::cuda {
namespace {

constexpr int32_t kLogitTile = 1024;
constexpr int64_t kPassKeys = 256;  // keys of a head that the chunks take at once

// The most that any mixer or MLP of the model needs of each.
struct Most {
  int64_t intermediate = 0;
  int64_t heads = 0;
  int64_t q = 0, k = 0;  // elements of a token in ChunkBuffers::q and ::k
  int64_t state = 0;     // elements of S
  int64_t partial = 0;   // columns of ChunkBuffers::partial
  int64_t conv = 0;      // columns of ChunkBuffers::conv
};

Most MostOf(const ModelSpec& spec) {
  Most most;
  ForEachMixer(spec, [&](int64_t, const MixerSpec& m) {
    if (m.core != Core::kLinear) return;
    const int64_t keys = KeyStride(m.dk);
    most.heads = std::max(most.heads, m.heads());
    if (m.decay == Decay::kKey) most.q = std::max(most.q, m.q_heads * keys);
    most.k = std::max(most.k, m.state_heads * keys);
    // Both lie in tiles if keys share their decay (linear.h).
    const bool tiles = m.decay != Decay::kKey;
    most.state = std::max(most.state, m.state_heads * (tiles ? keys * Stride(m.dv) : m.dk * m.dv));
    if (keys > kPassKeys)
      most.partial = std::max(most.partial, tiles ? m.heads() * Stride(m.dv) : m.out_dim());
    if (FusedGla(m) && m.conv.taps > 0) most.conv = std::max(most.conv, m.v.end());
  });
  ForEachMlp(spec, [&](int64_t, const MlpSpec& mlp) {
    most.intermediate = std::max(most.intermediate, mlp.intermediate);
  });
  return most;
}

}  // namespace

int64_t Workspace::BytesPerSlot(const ModelSpec& spec) {
  return MakeStateTable(spec).bytes() + (spec.vocab + 1) * 4 + LinearWorkspace::BytesPerRow(spec);
}

std::vector<PlannedBuffer> Workspace::Plan(const ModelSpec& spec, int32_t max_rows) {
  logit_tile_ = std::min(max_rows, kLogitTile);
  // Room for the chunks of one long prompt, and for some ends of spans.
  chunk_capacity_ = std::max<int64_t>(max_rows / kChunk + 64, kSpanChunks);
  const int64_t chunks = chunk_capacity_, spans = chunks / kSpanChunks + 1;
  const Most most = MostOf(spec);
  const int64_t gate_up = (most.intermediate + kGateUpBlock - 1) / kGateUpBlock * 2 * kGateUpBlock;
  const int64_t logits = CheckedBytes(logit_tile_, Stride(spec.vocab), 4);
  constexpr const char* kActivations = "activations";
  constexpr const char* kChunks = "prompt chunks";
  std::vector<PlannedBuffer> plan = {
      {CheckedBytes(kCountTokens, 1, 4), "token counts", &count_tokens_},
      {CheckedBytes(1, Stride(spec.hidden), 4), kActivations, &ones_},
      {CheckedBytes(max_rows, Stride(spec.hidden), 2), kActivations, &normed_},
      {CheckedBytes(max_rows, Stride(spec.hidden) / kSquaresColumns, 4), kActivations, &squares_},
      {CheckedBytes(max_rows, Stride(gate_up), 2), kActivations, &gate_up_},
      {logits, "logits", &logits_},
      {CheckedBytes(chunks, most.q * kChunk, 2), kChunks, &chunk_q_},
      {CheckedBytes(chunks, most.k * kChunk, 2), kChunks, &chunk_k_},
      {CheckedBytes(chunks * most.heads, kChunk * kChunk, 2), kChunks, &chunk_scores_},
      {CheckedBytes(chunks, most.k, 4), kChunks, &chunk_decay_},
      {CheckedBytes(spans, most.state, 4), kChunks, &span_carry_},
      {CheckedBytes(spans, most.k, 4), kChunks, &span_decay_},
  };
  if (SamplerNeedsScratch(static_cast<int32_t>(spec.vocab)))
    plan.push_back({logits, "logits", &adjusted_});
  if (most.partial > 0)
    plan.push_back({CheckedBytes(chunks * kChunk, most.partial, 4), kChunks, &partial_});
  if (most.conv > 0) {
    plan.push_back({CheckedBytes(max_rows, Stride(most.conv), 2), kChunks, &conv_});
  }
  linear_.Plan(spec, max_rows, chunks, &plan);
  for (PlannedBuffer& buffer : plan) {
    if (buffer.bytes >= 0) buffer.bytes += kSlack;
  }
  return plan;
}

int64_t Workspace::FixedBytes(const ModelSpec& spec, int32_t max_rows) {
  Workspace workspace;
  int64_t bytes = BytesPerSlot(spec);  // of the slot that is no sequence's
  for (const PlannedBuffer& buffer : workspace.Plan(spec, max_rows)) {
    if (buffer.bytes < 0 || bytes + buffer.bytes > int64_t{1} << 62) return -1;
    bytes += buffer.bytes;
  }
  return bytes;
}

absl::Status Workspace::Allocate(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                                 int32_t max_rows, const AttentionRoom& room) {
  table_ = MakeStateTable(spec);
  vocab_ = spec.vocab;
  slots_ = slots;
  max_rows_ = max_rows;
  std::vector<PlannedBuffer> plan = Plan(spec, max_rows);
  const std::string states = absl::StrCat(slots, " states");
  plan.push_back({CheckedBytes(slots + 1, slot_bytes(), 1), states.c_str(), &states_});
  plan.push_back({CheckedBytes(slots + 1, 1, 4), states.c_str(), &last_sampled_});
  plan.push_back({CheckedBytes(count_tables, vocab_, 4), "token counts", &counts_});
  linear_.PlanRows(spec, slots + 1, &plan);
  for (const PlannedBuffer& buffer : plan) {
    absl::StatusOr<Memory> memory =
        Memory::Allocate(MemoryKind::kDevice, buffer.bytes, buffer.what);
    if (!memory.ok()) return memory.status();
    *buffer.to = *std::move(memory);
  }
  if (absl::Status status = pages_.Allocate(table_, slots + 1, room); !status.ok()) return status;
  const std::vector<float> ones(spec.hidden, 1.0f);
  return CudaStatus(cudaMemcpy(ones_.as<void>(), ones.data(), ones.size() * sizeof(float),
                               cudaMemcpyHostToDevice),
                    "filling activations");
}

ChunkBuffers Workspace::ChunksOf(const MixerSpec& spec) const {
  ChunkBuffers chunks;
  chunks.key_stride = static_cast<int32_t>(KeyStride(spec.dk));
  chunks.q = chunk_q_.as<__nv_bfloat16>();
  chunks.k = chunk_k_.as<__nv_bfloat16>();
  chunks.scores = chunk_scores_.as<__nv_bfloat16>();
  chunks.decay = chunk_decay_.as<float>();
  chunks.carry = span_carry_.as<float>();
  chunks.span_decay = span_decay_.as<float>();
  if (chunks.key_stride > kPassKeys) chunks.partial = partial_.as<float>();
  if (spec.conv.taps > 0) {
    chunks.conv = conv_.as<__nv_bfloat16>();
    chunks.conv_stride = Stride(spec.v.end());
  }
  return chunks;
}

}  // namespace sluice::cuda
