// Tests the layout of a step for the device: rows of short prompts before those of others, and
// every name of a row names the same token as before. Needs no GPU.
#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>
#include <random>
#include <vector>

#include "kernels/cuda/step_packer.h"

namespace sluice {
namespace {

using cuda::ChunkMeta;
using cuda::LogitMeta;
using cuda::MetaArray;
using cuda::StepHeader;

// Every row of a step wants logits, and no two prompt tokens are the same.
struct Step {
  Step(int32_t num_decode, std::vector<PromptSegment> segments, int32_t longest = 64)
      : prompts(std::move(segments)), longest_short(longest) {
    for (int32_t i = 0; i < num_decode; ++i) decode.push_back({i, kLastSampled});
    int32_t row = num_decode;
    for (size_t i = 0; i < prompts.size(); ++i) {
      prompts[i].slot = num_decode + static_cast<int32_t>(i);
      row += prompts[i].length;
    }
    tokens.resize(row - num_decode);
    std::iota(tokens.begin(), tokens.end(), 1000);
    const int32_t* next = tokens.data();
    for (PromptSegment& prompt : prompts) {
      prompt.tokens = next;
      next += prompt.length;
    }
    for (int32_t i = 0; i < row; ++i) logits.push_back({.row = i, .target = 0});
    rows.decode = decode.data();
    rows.num_decode = num_decode;
    rows.prompts = prompts.data();
    rows.num_prompts = static_cast<int32_t>(prompts.size());
    rows.logits = logits.data();
    rows.num_logits = row;
    block.resize(cuda::StepPacker::MaxBytes(rows));
    cuda::StepPacker(16, longest_short).Pack(rows, nullptr, block.data(), &plan);
    header = reinterpret_cast<const StepHeader*>(block.data());
  }
  // The token of the row that lies at `row`.
  int32_t TokenAt(int32_t row) const {
    return MetaArray<int32_t>(header, header->tokens)[row - header->num_decode];
  }

  std::vector<DecodeRow> decode;
  std::vector<PromptSegment> prompts;
  const int32_t longest_short;
  std::vector<int32_t> tokens;
  std::vector<LogitRow> logits;
  StepRows rows;
  std::vector<char> block;
  cuda::StepPlan plan;
  const StepHeader* header = nullptr;
};

void CheckLayout(const Step& step) {
  const int32_t decode = step.rows.num_decode;
  EXPECT_LE(step.plan.bytes, static_cast<int64_t>(step.block.size()));
  ASSERT_EQ(step.header->num_rows, step.rows.num_logits);
  ASSERT_EQ(step.plan.num_prompt, step.header->num_rows - decode);
  // A row that wants logits is still the same token's.
  const LogitMeta* logits = MetaArray<LogitMeta>(step.header, step.header->logits);
  for (int32_t i = 0; i < step.rows.num_logits; ++i) {
    ASSERT_GE(logits[i].row, 0);
    ASSERT_LT(logits[i].row, step.header->num_rows);
    if (i < decode) {
      EXPECT_EQ(logits[i].row, i);
    } else {
      ASSERT_GE(logits[i].row, decode);
      EXPECT_EQ(step.TokenAt(logits[i].row), step.tokens[i - decode]);
    }
  }
  // The chunks of a slot are its segment, in order; those of short prompts are the first rows.
  const ChunkMeta* chunks = MetaArray<ChunkMeta>(step.header, step.header->chunks);
  std::vector<int32_t> done(step.prompts.size(), 0);
  int32_t short_rows = 0;
  for (int32_t i = 0; i < step.plan.num_chunks; ++i) {
    const size_t at = chunks[i].slot - decode;
    ASSERT_LT(at, step.prompts.size());
    const PromptSegment& prompt = step.prompts[at];
    EXPECT_EQ(chunks[i].offset, done[at]);
    for (int32_t t = 0; t < chunks[i].tokens; ++t)
      EXPECT_EQ(step.TokenAt(chunks[i].row + t), prompt.tokens[done[at] + t]);
    done[at] += chunks[i].tokens;
    EXPECT_EQ(chunks[i].last, done[at] == prompt.length ? 1 : 0);
    const bool is_short = prompt.start == 0 && prompt.length <= step.longest_short;
    EXPECT_EQ(chunks[i].row - decode < step.plan.num_short, is_short);
    if (is_short) short_rows += chunks[i].tokens;
  }
  EXPECT_EQ(short_rows, step.plan.num_short);
  for (size_t i = 0; i < done.size(); ++i) EXPECT_EQ(done[i], step.prompts[i].length);
}

TEST(CudaStepPackerTest, ShortPromptsComeFirst) {
  CheckLayout(Step(0, {}));
  CheckLayout(Step(3, {}));
  EXPECT_EQ(Step(3, {}).plan.num_short, 0);
  const Step both(2, {{0, 0, 65}, {0, 0, 64}, {0, 512, 30}, {0, 0, 1024}, {0, 0, 1}});
  CheckLayout(both);
  EXPECT_EQ(both.plan.num_short, 65);
  EXPECT_EQ(both.TokenAt(2), both.prompts[1].tokens[0]);
  EXPECT_EQ(both.TokenAt(2 + 64), both.prompts[4].tokens[0]);
  EXPECT_EQ(both.TokenAt(2 + 65), both.prompts[0].tokens[0]);
  const Step only_short(0, {{0, 0, 16}, {0, 0, 5}});
  CheckLayout(only_short);
  EXPECT_EQ(only_short.plan.num_short, 21);
  EXPECT_EQ(only_short.plan.num_short, only_short.plan.num_prompt);
  const Step none(2, {{0, 0, 65}, {0, 0, 1}, {0, 0, 64}}, 0);
  CheckLayout(none);
  EXPECT_EQ(none.plan.num_short, 0);
  EXPECT_EQ(none.TokenAt(2), none.prompts[0].tokens[0]) << "in the step's own order";
}

TEST(CudaStepPackerTest, AnyMixture) {
  std::mt19937_64 random(3);
  for (int i = 0; i < 300; ++i) {
    std::vector<PromptSegment> prompts(random() % 20);
    for (PromptSegment& prompt : prompts) {
      prompt.start = random() % 4 == 0 ? 512 : 0;
      prompt.length = 1 + static_cast<int32_t>(random() % (random() % 3 == 0 ? 1500 : 80));
    }
    CheckLayout(Step(static_cast<int32_t>(random() % 50), prompts, i % 3 == 0 ? 0 : 64));
  }
}

TEST(CudaStepPackerTest, RowsFindTheirPages) {
  const std::vector<int32_t> tokens(130);
  const DecodeRow decode[] = {{2, 7, 70}, {0, 7, 0}};
  const PromptSegment prompts[] = {{1, 0, 130, tokens.data(), 64}, {3, 0, 64, tokens.data(), 0}};
  StepRows rows;
  rows.decode = decode;
  rows.num_decode = 2;
  rows.prompts = prompts;
  rows.num_prompts = 2;
  PageMap map;
  map.Allocate(/*slots=*/4, /*max_tokens=*/200, /*pages=*/20);
  for (const DecodeRow& row : decode) map.Extend(row.slot, row.position + 1);
  for (const PromptSegment& prompt : prompts)
    map.Extend(prompt.slot, prompt.position + prompt.length);
  std::vector<char> block(cuda::StepPacker::MaxBytes(rows, /*paged=*/true));
  cuda::StepPlan plan;
  cuda::StepPacker(16, 64, &map).Pack(rows, nullptr, block.data(), &plan);
  EXPECT_LE(plan.bytes, static_cast<int64_t>(block.size()));
  const auto* header = reinterpret_cast<const StepHeader*>(block.data());
  const auto expect_pages = [&](int32_t offset, int32_t slot, size_t count) {
    ASSERT_EQ(map.pages(slot).size(), count);
    for (size_t i = 0; i < count; ++i)
      EXPECT_EQ(MetaArray<int32_t>(header, offset)[i], map.pages(slot)[i]) << "slot " << slot;
  };
  const auto* of_rows = MetaArray<cuda::RowMeta>(header, header->rows);
  expect_pages(of_rows[0].pages, 2, 2);
  expect_pages(of_rows[1].pages, 0, 1);
  ASSERT_EQ(plan.num_chunks, 4);
  for (int32_t i = 0; i < plan.num_chunks; ++i) {
    const ChunkMeta& chunk = MetaArray<ChunkMeta>(header, header->chunks)[i];
    expect_pages(chunk.pages, chunk.slot, chunk.slot == 1 ? 4 : 1);
    EXPECT_EQ(chunk.segment_tokens, chunk.slot == 1 ? 130 : 64);
  }
}

}  // namespace
}  // namespace sluice
