#include "kernels/cuda/page_store.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"
#include "kernels/cuda/cuda_status.h"
#include "kernels/saturated.h"

namespace sluice::cuda {
namespace {

// Rows begin at 16-byte words.
int64_t RowElements(const StatePart& part) { return (part.elements + 7) / 8 * 8; }

absl::Status Ok(cudaError_t error) { return CudaStatus(error, "copying pages of a state"); }

}  // namespace

int64_t PageStore::PageBytes(const StateTable& table) {
  int64_t elements = 0;
  for (const StatePart& part : table.parts()) {
    if (part.per_token && part.elements > int64_t{1} << 40) return INT64_MAX;
    if (part.per_token)
      elements = SaturatedSum(elements, SaturatedProduct(kPageTokens, RowElements(part)));
  }
  return SaturatedProduct(elements, sizeof(__nv_bfloat16));
}

absl::Status PageStore::Allocate(const StateTable& table, int32_t slots,
                                 const AttentionRoom& room) {
  table_ = table;
  bool grows = false;
  for (const StatePart& part : table.parts()) {
    Place& place = places_.emplace_back();
    if (!part.per_token) continue;
    SLUICE_CHECK(part.dtype == DType::kF32);
    grows = true;
    place = {page_elements_, RowElements(part)};
    page_elements_ += kPageTokens * place.row;
  }
  if (!grows) return absl::OkStatus();
  absl::StatusOr<Memory> memory =
      Memory::Allocate(MemoryKind::kDevice, CheckedBytes(room.pages, PageBytes(table), 1),
                       "pages of keys and values");
  if (!memory.ok()) return memory.status();
  memory_ = *std::move(memory);
  map_.Allocate(slots, room.max_tokens, room.pages);
  return absl::OkStatus();
}

const PageStore::Place* PageStore::Find(int64_t layer, StatePartKind kind) const {
  const StatePart* part = table_.Find(layer, kind);
  if (part == nullptr || !part->per_token) return nullptr;
  return &places_[part - table_.parts().data()];
}

absl::Status PageStore::CopyPage(const PageMap::PageCopy& copy, cudaStream_t stream) const {
  if (copy.from < 0) return absl::OkStatus();
  return Ok(
      cudaMemcpyAsync(pages() + copy.to * page_elements_, pages() + copy.from * page_elements_,
                      page_elements_ * sizeof(__nv_bfloat16), cudaMemcpyDeviceToDevice, stream));
}

template <class OfSlot, class OfPages>
absl::Status PageStore::ForEachPart(const Piece& piece, OfSlot of_slot, OfPages of_pages) const {
  const std::vector<int32_t>* ids = map_.in_use() ? &map_.pages(piece.slot) : nullptr;
  for (size_t i = 0; i < table_.parts().size(); ++i) {
    const StatePart& part = table_.parts()[i];
    const int64_t first = part.OffsetAt(piece.tokens);
    const int64_t begin = std::max(first, piece.at);
    const int64_t end = std::min(first + part.BytesAt(piece.tokens), piece.at + piece.count);
    if (begin >= end) continue;
    char* words = piece.words + (begin - piece.at);
    if (!part.per_token) {
      const absl::Status status =
          Ok(of_slot(piece.slot_memory + part.offset + (begin - first), words, end - begin));
      if (!status.ok()) return status;
      continue;
    }
    // A launch takes so many pages at a time.
    const int64_t cols = part.elements, of_page = kPageTokens * cols;
    const int64_t of_launch = PagePiece::kMostPages * of_page;
    const int64_t last = (end - first) / static_cast<int64_t>(sizeof(float));
    for (int64_t at = (begin - first) / static_cast<int64_t>(sizeof(float)); at < last;) {
      const int64_t page = at / of_page;
      PagePiece copy;
      copy.pages = pages() + places_[i].offset;
      copy.page_stride = page_elements_;
      copy.row = places_[i].row;
      copy.cols = cols;
      copy.begin = at - page * of_page;
      copy.end = std::min(last - page * of_page, of_launch);
      copy.words = reinterpret_cast<float*>(words);
      const auto count =
          std::min<int64_t>(static_cast<int64_t>(ids->size()) - page, PagePiece::kMostPages);
      std::copy_n(ids->begin() + page, count, copy.ids);
      const absl::Status status = Ok(of_pages(copy));
      if (!status.ok()) return status;
      words += (copy.end - copy.begin) * static_cast<int64_t>(sizeof(float));
      at = page * of_page + copy.end;
    }
  }
  return absl::OkStatus();
}

absl::Status PageStore::Gather(const Piece& piece, cudaStream_t stream) const {
  return ForEachPart(
      piece,
      [stream](char* slot, char* words, int64_t count) {
        return cudaMemcpyAsync(words, slot, count, cudaMemcpyDeviceToDevice, stream);
      },
      [stream](const PagePiece& pages) { return LaunchGatherPages(pages, stream); });
}

absl::Status PageStore::Scatter(const Piece& piece, cudaStream_t stream) const {
  return ForEachPart(
      piece,
      [stream](char* slot, char* words, int64_t count) {
        return cudaMemcpyAsync(slot, words, count, cudaMemcpyDeviceToDevice, stream);
      },
      [stream](const PagePiece& pages) { return LaunchScatterPages(pages, stream); });
}

}  // namespace sluice::cuda
