// Lays out a step for the device (step_meta.h, row_order.h) and cuts its prompts into chunks and
// spans. Host code only.
#ifndef SLUICE_KERNELS_CUDA_STEP_PACKER_H_
#define SLUICE_KERNELS_CUDA_STEP_PACKER_H_

#include <cstdint>
#include <vector>

#include "kernels/cuda/row_order.h"
#include "kernels/cuda/step_meta.h"
#include "kernels/page_map.h"
#include "kernels/step_rows.h"

namespace sluice::cuda {

// A part of a step's chunks that fits the chunk buffers. Whole spans come first in its list of
// spans.
struct ChunkRange {
  int first_chunk = 0, chunks = 0;
  int first_span = 0, spans = 0;
  int whole_spans = 0;
  int first_scan = 0, scans = 0;
};

struct StepPlan {
  int32_t num_decode = 0;
  int32_t num_short = 0;   // rows of short prompts, the first after the decode rows
  int32_t num_prompt = 0;  // rows of all prompts
  int32_t num_logits = 0;
  int32_t num_chunks = 0;
  std::vector<ChunkRange> waves;
  int64_t bytes = 0;  // of the packed block
};

class StepPacker {
 public:
  // `chunk_capacity`: chunks of a wave, at least kSpanChunks. `longest_short`: RowOrder's. `pages`:
  // of the slots, which have those of each step's rows when it is packed; null: there are none.
  StepPacker(int chunk_capacity, int32_t longest_short, const PageMap* pages = nullptr)
      : chunk_capacity_(chunk_capacity), pages_(pages), order_(longest_short) {}

  // Bytes that Pack writes at most; `paged`: with pages.
  static int64_t MaxBytes(const StepRows& rows, bool paged = false);
  bool paged() const { return pages_ != nullptr; }

  // `results`: where the device writes (rows.num_logits).
  void Pack(const StepRows& rows, LogitResult* results, char* block, StepPlan* plan);

 private:
  void CutPrompts(StepPlan* plan);

  const int chunk_capacity_;
  const PageMap* const pages_;
  RowOrder order_;
  std::vector<ChunkMeta> chunks_;
  std::vector<SpanMeta> spans_, partial_;
  std::vector<ScanMeta> scans_;
};

}  // namespace sluice::cuda

#endif  // SLUICE_KERNELS_CUDA_STEP_PACKER_H_
