#include "kernels/cuda/workspace.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/sampler.h"

namespace sluice::cuda {
namespace {

constexpr int32_t kLogitTile = 1024;

}  // namespace

int64_t Workspace::BytesPerSlot(const ModelShape& shape) {
  return MakeStateLayout(shape).bytes() + (shape.vocab + 1) * 4;
}

std::vector<Workspace::Buffer> Workspace::Plan(const ModelShape& shape, int32_t max_rows) {
  logit_tile_ = std::min(max_rows, kLogitTile);
  // Room for the chunks of one long prompt, and for some ends of spans.
  chunk_capacity_ = std::max<int64_t>(max_rows / kChunk + 64, kSpanChunks);
  const int64_t chunks = chunk_capacity_, spans = chunks / kSpanChunks + 1;
  const int64_t keys = (shape.dk + 63) / 64 * 64;
  const int64_t gate_up = (shape.intermediate + kGateUpBlock - 1) / kGateUpBlock * 2 * kGateUpBlock;
  const int64_t logits = CheckedBytes(logit_tile_, Stride(shape.vocab), 4);
  constexpr const char* kActivations = "activations";
  constexpr const char* kChunks = "prompt chunks";
  std::vector<Buffer> plan = {
      {CheckedBytes(kCountTokens, 1, 4), "token counts", &count_tokens_},
      {CheckedBytes(max_rows, Stride(shape.hidden), 2), kActivations, &normed_},
      {CheckedBytes(max_rows, Stride(shape.hidden) / kSquaresColumns, 4), kActivations, &squares_},
      {CheckedBytes(max_rows, Stride(gate_up), 2), kActivations, &gate_up_},
      {logits, "logits", &logits_},
      {CheckedBytes(chunks * shape.heads, kChunk * keys, 2), kChunks, &chunk_q_},
      {CheckedBytes(chunks * shape.kv_heads, kChunk * keys, 2), kChunks, &chunk_k_},
      {CheckedBytes(chunks * shape.heads, kChunk * kChunk, 2), kChunks, &chunk_scores_},
      {CheckedBytes(chunks * shape.kv_heads, keys, 4), kChunks, &chunk_decay_},
      {CheckedBytes(spans * shape.kv_heads, shape.dk * shape.dv, 4), kChunks, &span_carry_},
      {CheckedBytes(spans * shape.kv_heads, keys, 4), kChunks, &span_decay_},
  };
  if (SamplerNeedsScratch(static_cast<int32_t>(shape.vocab)))
    plan.push_back({logits, "logits", &adjusted_});
  if (keys > 256) plan.push_back({CheckedBytes(max_rows, shape.out_dim(), 4), kChunks, &partial_});
  if (shape.conv_size > 0)
    plan.push_back({CheckedBytes(max_rows, Stride(shape.gate_offset()), 2), kChunks, &conv_});
  for (Buffer& buffer : plan) {
    if (buffer.bytes >= 0) buffer.bytes += kSlack;
  }
  return plan;
}

int64_t Workspace::FixedBytes(const ModelShape& shape, int32_t max_rows) {
  Workspace workspace;
  int64_t bytes = BytesPerSlot(shape);  // of the slot that is no sequence's
  for (const Buffer& buffer : workspace.Plan(shape, max_rows)) {
    if (buffer.bytes < 0 || bytes + buffer.bytes > int64_t{1} << 62) return -1;
    bytes += buffer.bytes;
  }
  return bytes;
}

absl::Status Workspace::Allocate(const ModelShape& shape, int32_t slots, int32_t count_tables,
                                 int32_t max_rows) {
  layout_ = MakeStateLayout(shape);
  vocab_ = shape.vocab;
  slots_ = slots;
  max_rows_ = max_rows;
  std::vector<Buffer> plan = Plan(shape, max_rows);
  const std::string states = absl::StrCat(slots, " states");
  plan.push_back({CheckedBytes(slots + 1, slot_floats(), 4), states.c_str(), &states_});
  plan.push_back({CheckedBytes(slots + 1, 1, 4), states.c_str(), &last_sampled_});
  plan.push_back({CheckedBytes(count_tables, vocab_, 4), "token counts", &counts_});
  for (const Buffer& buffer : plan) {
    absl::StatusOr<Memory> memory =
        Memory::Allocate(MemoryKind::kDevice, buffer.bytes, buffer.what);
    if (!memory.ok()) return memory.status();
    *buffer.to = *std::move(memory);
  }
  chunks_.key_stride = static_cast<int32_t>((shape.dk + 63) / 64 * 64);
  chunks_.q = chunk_q_.as<__nv_bfloat16>();
  chunks_.k = chunk_k_.as<__nv_bfloat16>();
  chunks_.scores = chunk_scores_.as<__nv_bfloat16>();
  chunks_.decay = chunk_decay_.as<float>();
  chunks_.carry = span_carry_.as<float>();
  chunks_.span_decay = span_decay_.as<float>();
  chunks_.partial = partial_.as<float>();
  chunks_.conv = conv_.as<__nv_bfloat16>();
  chunks_.conv_stride = Stride(shape.gate_offset());
  return absl::OkStatus();
}

}  // namespace sluice::cuda
