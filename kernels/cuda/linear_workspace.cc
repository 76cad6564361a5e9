#include "kernels/cuda/linear_workspace.h"

#include <algorithm>

#include "kernels/cores.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/linear_maps.h"
#include "kernels/cuda/softmax.h"

namespace sluice::cuda {
namespace {

// The most elements of a row, or of a chunk, that any of the model's mixers needs of each.
struct Most {
  int64_t front = 0, out = 0;
  int64_t prompt_front = 0;                    // of Core::kLinear and kSoftmax
  int64_t states = 0;                          // of Core::kLinear
  int64_t softmax_parts = 0;                   // of a decode row
  int64_t wide_front = 0, beta = 0, loss = 0;  // of Core::kDelta
  int64_t log_decay = 0, key_scale = 0, log_sums = 0, map_products = 0, gate = 0;
  int64_t denominators = 0, key_sums = 0;  // with normalisers
};

int64_t MapProducts(const MixerSpec& m) {
  return std::max(m.q_heads * MapMatrices(m.q_map), m.k_heads * MapMatrices(m.k_map)) * m.key_width;
}

Most MostOf(const ModelSpec& spec) {
  Most most;
  const auto raise = [](int64_t* to, int64_t value) { *to = std::max(*to, value); };
  ForEachMixer(spec, [&](int64_t, const MixerSpec& m) {
    if (FusedGla(m)) return;
    const int64_t keys = m.state_heads * m.dk;
    raise(&most.out, m.out_dim());
    if (m.core == Core::kSoftmax) {
      raise(&most.prompt_front, FrontStride(m));
      raise(&most.softmax_parts, kSoftmaxParts * m.q_heads * (m.dv + 2));
      return;
    }
    raise(&most.front, FrontStride(m));
    if (m.low_rank_gate) raise(&most.gate, m.out_dim());
    if (m.core == Core::kDelta) {
      raise(&most.wide_front, FrontStride(m));
      raise(&most.beta, m.state_heads);
      raise(&most.loss, m.decay == Decay::kKey ? keys : m.state_heads);
      return;
    }
    raise(&most.prompt_front, FrontStride(m));
    raise(&most.states, m.state_heads);
    if (m.decay == Decay::kHead) raise(&most.log_decay, m.state_heads);
    if (m.decay == Decay::kKey) raise(&most.log_decay, keys);
    if (m.gate == GateMap::kMamba2) raise(&most.key_scale, m.state_heads);
    if (m.gate == GateMap::kLightNet) raise(&most.log_sums, keys);
    raise(&most.map_products, MapProducts(m));
    if (m.normaliser) raise(&most.denominators, m.heads());
    if (m.normaliser) raise(&most.key_sums, keys);
  });
  return most;
}

}  // namespace

int64_t FrontStride(const MixerSpec& m) {
  return Stride((m.q_heads + m.k_heads) * m.dk + m.v_heads * m.dv);
}

int64_t LinearWorkspace::BytesPerRow(const ModelSpec& spec) {
  const Most most = MostOf(spec);
  if (most.out == 0) return 0;
  return 4 * (most.front + most.out + most.denominators + most.softmax_parts + 1);
}

void LinearWorkspace::PlanRows(const ModelSpec& spec, int32_t rows,
                               std::vector<PlannedBuffer>* plan) {
  const Most most = MostOf(spec);
  if (most.out == 0) return;
  constexpr const char* kRows = "decode rows";
  plan->push_back({CheckedBytes(rows, most.softmax_parts, 4), kRows, &softmax_parts_});
  plan->push_back({CheckedBytes(rows, most.front, 4), kRows, &decode_front_});
  plan->push_back({CheckedBytes(rows, most.out, 4), kRows, &decode_o_});
  plan->push_back({CheckedBytes(rows, most.denominators, 4), kRows, &decode_denominators_});
  plan->push_back({CheckedBytes(rows, 1, 4), kRows, &arrivals_});
}

void LinearWorkspace::Plan(const ModelSpec& spec, int32_t max_rows, int64_t chunks,
                           std::vector<PlannedBuffer>* plan) {
  const Most most = MostOf(spec);
  if (most.out == 0) return;
  constexpr const char* kActivations = "activations";
  constexpr const char* kChunks = "prompt chunks";
  plan->push_back({CheckedBytes(max_rows, most.prompt_front, 2), kActivations, &prompt_front_});
  plan->push_back({CheckedBytes(max_rows, most.wide_front, 4), kActivations, &wide_front_});
  plan->push_back({CheckedBytes(max_rows, most.beta, 4), kActivations, &beta_});
  plan->push_back({CheckedBytes(max_rows, most.loss, 4), kActivations, &loss_});
  plan->push_back({CheckedBytes(max_rows, most.log_decay, 4), kActivations, &log_decay_});
  plan->push_back({CheckedBytes(max_rows, most.key_scale, 4), kActivations, &key_scale_});
  plan->push_back({CheckedBytes(max_rows, most.log_sums, 4), kActivations, &log_sums_});
  plan->push_back({CheckedBytes(max_rows, most.map_products, 4), kActivations, &map_products_});
  plan->push_back({CheckedBytes(max_rows, most.gate, 4), kActivations, &gate_});
  plan->push_back({CheckedBytes(max_rows, most.denominators, 4), kActivations, &denominators_});
  plan->push_back({CheckedBytes(chunks, most.states * 2 * kChunk, 4), kChunks, &decays_});
  plan->push_back({CheckedBytes(chunks, most.key_sums, 4), kChunks, &key_sums_});
}

LinearDecodeBuffers LinearWorkspace::decode() const {
  LinearDecodeBuffers buffers;
  buffers.o = decode_o_.as<float>();
  buffers.denominators = decode_denominators_.as<float>();
  buffers.arrivals = arrivals_.as<int32_t>();
  return buffers;
}

LinearBuffers LinearWorkspace::prompts(const ChunkBuffers& chunk) const {
  LinearBuffers buffers;
  buffers.chunk = chunk;
  buffers.decays = decays_.as<float>();
  buffers.denominators = denominators_.as<float>();
  buffers.key_sums = key_sums_.as<float>();
  return buffers;
}

}  // namespace sluice::cuda
