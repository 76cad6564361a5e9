#include "kernels/cuda/step_packer.h"

#include <algorithm>
#include <cstring>

#include "kernels/state_table.h"

namespace sluice::cuda {
namespace {

int64_t Aligned(int64_t bytes) { return (bytes + 15) / 16 * 16; }

// Appends arrays to the block.
class Writer {
 public:
  explicit Writer(char* block) : block_(block), at_(Aligned(sizeof(StepHeader))) {}

  template <class T>
  int32_t Add(const T* values, int64_t count) {
    const int32_t offset = static_cast<int32_t>(at_);
    if (count > 0) std::memcpy(block_ + at_, values, count * sizeof(T));
    at_ = Aligned(at_ + count * static_cast<int64_t>(sizeof(T)));
    return offset;
  }
  template <class T>
  T* Reserve(int64_t count, int32_t* offset) {
    *offset = static_cast<int32_t>(at_);
    at_ = Aligned(at_ + count * static_cast<int64_t>(sizeof(T)));
    return reinterpret_cast<T*>(block_ + *offset);
  }
  int64_t size() const { return at_; }

 private:
  char* const block_;
  int64_t at_;
};

LogitMeta MakeLogitMeta(const LogitRow& row, const RowOrder& order) {
  LogitMeta m = {};
  m.row = order.Place(row.row);
  m.slot = row.slot;
  m.target = row.target;
  m.alternatives = row.alternatives;
  m.seed = row.seed;
  m.position = row.position;
  m.sequence = row.sequence;
  m.counts = row.counts;
  m.num_bias = row.num_bias;
  m.num_banned = row.num_banned;
  if (row.sampling != nullptr) m.sampling = *row.sampling;
  return m;
}

}  // namespace

int64_t StepPacker::MaxBytes(const StepRows& rows, bool paged) {
  int64_t tokens = 0, chunks = 0, biases = 0, pages = 0;
  // Each list begins at a whole line.
  const auto list = [](int64_t seen) { return Aligned(PagesFor(seen) * 4); };
  for (int32_t i = 0; paged && i < rows.num_decode; ++i) pages += list(rows.decode[i].position + 1);
  for (int32_t i = 0; paged && i < rows.num_prompts; ++i)
    pages += list(rows.prompts[i].position + rows.prompts[i].length);
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    tokens += rows.prompts[i].length;
    chunks += (rows.prompts[i].length + kChunk - 1) / kChunk;
  }
  for (int32_t i = 0; i < rows.num_logits; ++i)
    biases += rows.logits[i].num_bias + rows.logits[i].num_banned;
  constexpr int64_t kPadding = 16 * 9;
  return static_cast<int64_t>(sizeof(StepHeader)) +
         rows.num_decode * static_cast<int64_t>(sizeof(RowMeta)) + tokens * 4 +
         chunks * static_cast<int64_t>(sizeof(ChunkMeta) + sizeof(SpanMeta) + sizeof(ScanMeta)) +
         rows.num_logits * static_cast<int64_t>(sizeof(LogitMeta)) +
         biases * static_cast<int64_t>(sizeof(TokenBias)) + pages + kPadding;
}

void StepPacker::CutPrompts(StepPlan* plan) {
  chunks_.clear();
  spans_.clear();
  scans_.clear();
  partial_.clear();
  plan->waves.clear();
  ChunkRange wave;
  const auto end_wave = [&] {
    if (wave.chunks == 0) return;
    spans_.insert(spans_.end(), partial_.begin(), partial_.end());
    partial_.clear();
    wave.spans = static_cast<int>(spans_.size()) - wave.first_span;
    wave.scans = static_cast<int>(scans_.size()) - wave.first_scan;
    plan->waves.push_back(wave);
    wave = ChunkRange();
    wave.first_chunk = static_cast<int>(chunks_.size());
    wave.first_span = static_cast<int>(spans_.size());
    wave.first_scan = static_cast<int>(scans_.size());
  };
  for (const RowOrder::Prompt& prompt : order_.prompts()) {
    const PromptSegment& segment = *prompt.segment;
    bool scanning = false;  // the segment's last span in this wave was whole
    for (int32_t done = 0; done < segment.length;) {
      const int32_t length = std::min(segment.length - done, kSpan);
      const int32_t span_chunks = (length + kChunk - 1) / kChunk;
      if (wave.chunks + span_chunks > chunk_capacity_) {
        end_wave();
        scanning = false;
      }
      SpanMeta span = {static_cast<int32_t>(chunks_.size()), span_chunks, segment.slot, -1};
      if (length == kSpan) {
        span.carry = wave.whole_spans++;
        if (!scanning) scans_.push_back({segment.slot, static_cast<int32_t>(spans_.size()), 0, 0});
        ++scans_.back().spans;
        scanning = true;
        spans_.push_back(span);
      } else {
        partial_.push_back(span);
      }
      for (int32_t c = 0; c < length; c += kChunk) {
        const int32_t tokens = std::min(length - c, kChunk);
        chunks_.push_back({prompt.row + done + c, tokens, segment.slot, done + c,
                           done + c + tokens == segment.length ? 1 : 0, 0,
                           segment.position + done + c, segment.length, 0});
      }
      wave.chunks += span_chunks;
      done += length;
    }
  }
  end_wave();
  plan->num_chunks = static_cast<int32_t>(chunks_.size());
}

void StepPacker::Pack(const StepRows& rows, LogitResult* results, char* block, StepPlan* plan) {
  plan->num_decode = rows.num_decode;
  plan->num_logits = rows.num_logits;
  order_.Arrange(rows);
  plan->num_short = order_.short_rows();
  plan->num_prompt = order_.prompt_rows();
  CutPrompts(plan);
  Writer writer(block);
  StepHeader header = {};
  header.num_decode = rows.num_decode;
  header.num_rows = rows.num_decode + plan->num_prompt;
  header.num_logits = rows.num_logits;
  header.results = results;
  RowMeta* decode = writer.Reserve<RowMeta>(rows.num_decode, &header.rows);
  for (int32_t i = 0; i < rows.num_decode; ++i)
    decode[i] = {rows.decode[i].slot, rows.decode[i].token, rows.decode[i].position, 0, 0};
  int32_t* tokens = writer.Reserve<int32_t>(plan->num_prompt, &header.tokens);
  for (const RowOrder::Prompt& prompt : order_.prompts()) {
    tokens = std::copy_n(prompt.segment->tokens, prompt.segment->length, tokens);
  }
  if (pages_ != nullptr) {
    const auto list = [&](int32_t slot, int64_t seen) {
      const std::vector<int32_t>& pages = pages_->pages(slot);
      return writer.Add(pages.data(), std::min(static_cast<int64_t>(pages.size()), PagesFor(seen)));
    };
    for (int32_t i = 0; i < rows.num_decode; ++i)
      decode[i].pages = list(decode[i].slot, decode[i].position + 1);
    int32_t of_segment = 0;
    for (ChunkMeta& chunk : chunks_) {
      if (chunk.offset == 0) of_segment = list(chunk.slot, chunk.position + chunk.segment_tokens);
      chunk.pages = of_segment;
    }
  }
  header.chunks = writer.Add(chunks_.data(), chunks_.size());
  header.spans = writer.Add(spans_.data(), spans_.size());
  header.scans = writer.Add(scans_.data(), scans_.size());
  LogitMeta* logits = writer.Reserve<LogitMeta>(rows.num_logits, &header.logits);
  int64_t num_biases = 0, num_banned = 0;
  for (int32_t i = 0; i < rows.num_logits; ++i) {
    logits[i] = MakeLogitMeta(rows.logits[i], order_);
    logits[i].bias = static_cast<int32_t>(num_biases);
    logits[i].banned = static_cast<int32_t>(num_banned);
    num_biases += rows.logits[i].num_bias;
    num_banned += rows.logits[i].num_banned;
  }
  TokenBias* biases = writer.Reserve<TokenBias>(num_biases, &header.biases);
  int32_t* banned = writer.Reserve<int32_t>(num_banned, &header.banned);
  for (int32_t i = 0; i < rows.num_logits; ++i) {
    biases = std::copy_n(rows.logits[i].bias, rows.logits[i].num_bias, biases);
    banned = std::copy_n(rows.logits[i].banned, rows.logits[i].num_banned, banned);
  }
  std::memcpy(block, &header, sizeof(header));
  plan->bytes = writer.size();
}

}  // namespace sluice::cuda
