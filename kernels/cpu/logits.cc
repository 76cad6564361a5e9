#include "kernels/cpu/logits.h"

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "kernels/check.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/norm.h"

namespace sluice {
namespace {

// Rows of logits in memory at a time: a whole number of the GEMM's tiles.
constexpr int64_t kTileRows = 48;

}  // namespace

absl::Status LogitsOp::Allocate(const ModelSpec& spec) {
  vocab_ = spec.vocab;
  absl::StatusOr<HostBuffer> buffer =
      HostBuffer::Allocate(kTileRows, PaddedCols(spec.hidden) * sizeof(float), "logits");
  if (!buffer.ok()) return buffer.status();
  normed_ = std::move(*buffer);
  buffer = HostBuffer::Allocate(kTileRows, PaddedCols(spec.vocab) * sizeof(float), "logits");
  if (!buffer.ok()) return buffer.status();
  logits_ = std::move(*buffer);
  source_.resize(kTileRows);
  samplers_.resize(pool_->threads());
  for (Sampler& sampler : samplers_) {
    if (absl::Status status = sampler.Allocate(spec.vocab, SampledTokens(spec)); !status.ok())
      return status;
  }
  return absl::OkStatus();
}

void LogitsOp::Run(const StepRows& rows, const LogitsArgs& args) {
  for (int64_t begin = 0; begin < rows.num_logits; begin += kTileRows) {
    RunTile(rows, args, begin, std::min<int64_t>(begin + kTileRows, rows.num_logits));
  }
}

void LogitsOp::RunTile(const StepRows& rows, const LogitsArgs& args, int64_t begin, int64_t end) {
  const int64_t hidden = PaddedCols(args.x.cols), vocab = PaddedCols(vocab_);
  int32_t distinct = 0;
  for (int64_t i = begin; i < end; ++i) {
    // Several samples of one row follow one another.
    if (i == begin || rows.logits[i].row != rows.logits[i - 1].row) {
      NormRow(args.norm.norm, static_cast<const float*>(args.x.data) + rows.logits[i].row * hidden,
              args.norm.weight.data, args.norm.bias.data, args.x.cols,
              normed_.floats() + distinct * hidden);
      ++distinct;
    }
    source_[i - begin] = distinct - 1;
  }
  Gemm(pool_, {.a = normed_.floats(),
               .lda = hidden,
               .m = distinct,
               .w = args.weight,
               .c = logits_.floats(),
               .ldc = vocab,
               .factor = args.scale});
  for (int64_t row = 0; row < distinct; ++row) {
    std::fill(logits_.floats() + row * vocab + vocab_, logits_.floats() + (row + 1) * vocab,
              -std::numeric_limits<float>::infinity());
  }
  pool_->ParallelFor(end - begin, [&](int64_t i, int thread) {
    FinishRow(rows.logits[begin + i], logits_.floats() + source_[i] * vocab, &samplers_[thread],
              &rows.results[begin + i]);
  });
}

void LogitsOp::FinishRow(const LogitRow& row, const float* logits, Sampler* sampler,
                         LogitResult* result) {
  *result = LogitResult{};
  if (row.logits_out != nullptr) std::memcpy(row.logits_out, logits, vocab_ * sizeof(float));
  const LogitSummary summary = Summarize(logits, vocab_);
  if (summary.has_nan || !std::isfinite(summary.max)) {
    result->finite = false;
    return;
  }
  if (row.target != kNoTarget) {
    result->token = row.target;
  } else {
    SLUICE_CHECK(row.sampling != nullptr);
    result->token = sampler->Sample(row, logits, summary, *counts_);
    states_->SetLastSampled(row.slot, result->token);
    if (row.counts >= 0) counts_->AddGenerated(row.counts, result->token);
  }
  if (row.alternatives < 0) return;
  const double log_total = std::log(SumExp(logits, vocab_, summary.max));
  const auto logprob = [&](int32_t token) {
    return static_cast<float>(static_cast<double>(logits[token]) - summary.max - log_total);
  };
  result->logprob = logprob(result->token);
  result->rank = static_cast<int32_t>(1 + CountBefore(logits, vocab_, result->token));
  int32_t best[kMaxAlternatives];
  result->num_alternatives = static_cast<int32_t>(
      sampler->TopTokens(logits, std::min(row.alternatives, kMaxAlternatives), best));
  for (int32_t i = 0; i < result->num_alternatives; ++i) {
    result->alternatives[i] = {best[i], logprob(best[i])};
  }
}

}  // namespace sluice
