#include "kernels/cpu/token_counts.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

constexpr uint32_t kSeenInPrompt = uint32_t{1} << 31;
constexpr uint32_t kGenerated = kSeenInPrompt - 1;
// Almost all entries are zero: they are skipped a line at a time.
constexpr int64_t kLine = 16;

float Penalize(float logit, uint32_t entry, const SamplingConfig& config) {
  logit = logit > 0.0f ? logit / config.repetition_penalty : logit * config.repetition_penalty;
  const uint32_t count = entry & kGenerated;
  if (count == 0) return logit;
  return logit - config.frequency_penalty * static_cast<float>(count) - config.presence_penalty;
}

}  // namespace

absl::Status TokenCounts::Allocate(int32_t tables, int64_t vocab) {
  absl::StatusOr<HostBuffer> buffer = HostBuffer::Allocate(
      tables, SaturatedProduct(PaddedCols(vocab), sizeof(uint32_t)), "token counts");
  if (!buffer.ok()) return buffer.status();
  buffer_ = std::move(*buffer);
  tables_ = tables;
  vocab_ = vocab;
  return absl::OkStatus();
}

uint32_t* TokenCounts::Table(int32_t table) const {
  SLUICE_CHECK(table >= 0 && table < tables_);
  return static_cast<uint32_t*>(buffer_.data()) + table * PaddedCols(vocab_);
}

void TokenCounts::Reset(int32_t table, absl::Span<const int32_t> prompt) {
  uint32_t* entries = Table(table);
  std::memset(entries, 0, vocab_ * sizeof(uint32_t));
  for (int32_t token : prompt) {
    SLUICE_CHECK(token >= 0 && token < vocab_);
    entries[token] |= kSeenInPrompt;
  }
}

void TokenCounts::AddGenerated(int32_t table, int32_t token) {
  uint32_t& entry = Table(table)[token];
  if ((entry & kGenerated) != kGenerated) ++entry;
}

void TokenCounts::ApplyPenalties(int32_t table, const SamplingConfig& config, float* logits) const {
  const uint32_t* entries = Table(table);
  for (int64_t line = 0; line < vocab_; line += kLine) {
    uint32_t any = 0;
    for (int64_t i = 0; i < kLine; ++i) any |= entries[line + i];
    if (any == 0) continue;
    for (int64_t i = line; i < std::min(line + kLine, vocab_); ++i) {
      if (entries[i] != 0) logits[i] = Penalize(logits[i], entries[i], config);
    }
  }
}

}  // namespace sluice
