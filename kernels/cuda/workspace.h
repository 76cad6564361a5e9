// The device memory that a step works in, next to weights and activations: the slots with their
// states and token counts, and what the ops leave for each other.
#ifndef SLUICE_KERNELS_CUDA_WORKSPACE_H_
#define SLUICE_KERNELS_CUDA_WORKSPACE_H_

#include <array>
#include <cstdint>
#include <vector>

#include "absl/status/status.h"
#include "kernels/cuda/device_memory.h"
#include "kernels/cuda/linear_workspace.h"
#include "kernels/cuda/mixer.h"
#include "kernels/cuda/page_store.h"
#include "kernels/state_table.h"

namespace sluice::cuda {

// Activations are followed by room for reads of whole 16-byte words.
inline constexpr int64_t kSlack = 256;
inline constexpr int64_t kCountTokens = 16384;  // of a prompt, marked at once

class Workspace {
 public:
  // One slot more than `slots` is there: the last, which is no sequence's. `room`: where states
  // grow.
  absl::Status Allocate(const ModelSpec& spec, int32_t slots, int32_t count_tables,
                        int32_t max_rows, const AttentionRoom& room);

  // Bytes of a slot and its company: the token last sampled in it, and a table of counts.
  static int64_t BytesPerSlot(const ModelSpec& spec);
  // Bytes of everything that does not grow with the slots; -1 past 2^62.
  static int64_t FixedBytes(const ModelSpec& spec, int32_t max_rows);

  const StateTable& table() const { return table_; }
  int64_t vocab() const { return vocab_; }
  int32_t slots() const { return slots_; }
  int32_t max_rows() const { return max_rows_; }
  int32_t logit_tile() const { return logit_tile_; }  // rows of logits in memory at a time
  int64_t chunk_capacity() const { return chunk_capacity_; }
  // The buffers in the layout that the kernels of this mixer, one of the model's, want.
  ChunkBuffers ChunksOf(const MixerSpec& spec) const;
  const LinearWorkspace& linear() const { return linear_; }
  const PageStore& pages() const { return pages_; }
  PageMap& page_map() { return pages_.map(); }
  int64_t slot_bytes() const { return table_.bytes(); }
  char* Slot(int32_t slot) const { return states_.as<char>() + slot * slot_bytes(); }
  uint32_t* Counts(int32_t table) const { return counts_.as<uint32_t>() + table * vocab_; }

  int32_t* last_sampled() const { return last_sampled_.as<int32_t>(); }  // (slots + 1)
  int32_t* count_tokens() const { return count_tokens_.as<int32_t>(); }  // (kCountTokens)
  __nv_bfloat16* normed() const { return normed_.as<__nv_bfloat16>(); }  // (max_rows, hidden)
  const float* ones() const {
    return ones_.as<float>();
  }  // (hidden): the weights of a norm without
  float* squares() const { return squares_.as<float>(); }  // GemmRowsArgs's, of the residual stream
  // (max_rows, 2 * padded intermediate)
  __nv_bfloat16* gate_up() const { return gate_up_.as<__nv_bfloat16>(); }
  float* logits() const { return logits_.as<float>(); }      // (logit_tile, vocab)
  float* adjusted() const { return adjusted_.as<float>(); }  // likewise, for large vocabularies

 private:
  std::vector<PlannedBuffer> Plan(const ModelSpec& spec, int32_t max_rows);

  StateTable table_;
  int64_t vocab_ = 0;
  int32_t slots_ = 0;
  int32_t max_rows_ = 0;
  int32_t logit_tile_ = 0;
  int64_t chunk_capacity_ = 0;
  LinearWorkspace linear_;
  PageStore pages_;
  Memory states_, last_sampled_, counts_, count_tokens_;
  Memory ones_, normed_, squares_, gate_up_, logits_, adjusted_;
  Memory chunk_q_, chunk_k_, chunk_scores_, chunk_decay_, span_carry_, span_decay_, partial_, conv_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_WORKSPACE_H_
