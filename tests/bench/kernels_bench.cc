// Workloads: the GEMMs of the bundled 12M model (hidden 384, bf16, its 6 layers in turn so that
// weights come from the third-level cache as they do in a step), its token mixer by recurrence and
// by chunks, and sampling from 128k logits. Each figure is the best of several rounds of at least
// 30 ms.
#include "tests/bench/kernels_bench.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <random>
#include <string>
#include <vector>

#include "engine/checkpoint/families/gla.h"
#include "hwy/targets.h"
#include "kernels/cpu/gemm.h"
#include "kernels/cpu/host_buffer.h"
#include "kernels/cpu/logits.h"
#include "kernels/cpu/mixer.h"
#include "kernels/cpu/pack.h"
#include "kernels/cpu/state_pool.h"
#include "kernels/cpu/thread_pool.h"
#include "tests/bench/best_time.h"
#include "tests/bench/machine_peak.h"
#include "tests/bench/mixers_bench.h"

namespace sluice {
namespace {

constexpr int64_t kLayers = 6;

std::vector<uint16_t> RandomBF16(int64_t count) {
  std::mt19937 random(1);
  std::vector<uint16_t> values(count);
  for (uint16_t& v : values)
    v = static_cast<uint16_t>(0x3c00 + random() % 512 + (random() & 1) * 0x8000);
  return values;
}

std::vector<float> RandomFloats(int64_t count) {
  std::mt19937 random(2);
  std::normal_distribution<float> normal;
  std::vector<float> values(count + kLineFloats);
  for (float& v : values) v = normal(random);
  return values;
}

struct GemmShape {
  const char* name;
  int64_t n, k, layers;
  GemmStore store;
};

void BenchGemm(ThreadPool* pool, const GemmShape& shape) {
  const std::vector<uint16_t> values = RandomBF16(shape.n * shape.k);
  std::vector<PackedMatrix> weights;
  for (int64_t i = 0; i < shape.layers; ++i) {
    const MatrixView all = {values.data(), DType::kBF16, shape.n, shape.k};
    const MatrixView half = {values.data(), DType::kBF16, shape.n / 2, shape.k};
    auto packed =
        shape.store == GemmStore::kSwiGlu ? PackGateUp(half, half, pool) : PackRows({all}, pool);
    if (!packed.ok()) return;
    weights.push_back(std::move(*packed));
  }
  std::printf("%-16s %5ld x %4ld |", shape.name, static_cast<long>(shape.n),
              static_cast<long>(shape.k));
  for (int64_t m : {1, 2, 4, 8, 16, 64, 512}) {
    const std::vector<float> a = RandomFloats(m * PaddedCols(shape.k));
    std::vector<float> c(m * PaddedCols(shape.n));
    const double seconds = BestTime([&] {
                             for (const PackedMatrix& w : weights) {
                               Gemm(pool, {.a = a.data(),
                                           .lda = PaddedCols(shape.k),
                                           .m = m,
                                           .w = w.linear,
                                           .c = c.data(),
                                           .ldc = PaddedCols(shape.n),
                                           .store = shape.store});
                             }
                           }) /
                           static_cast<double>(shape.layers);
    const double elements = static_cast<double>(shape.n * shape.k);
    std::printf(" %6.1f",
                (m <= 16 ? 2 * elements : 2 * elements * static_cast<double>(m)) / seconds * 1e-9);
  }
  std::printf("\n");
}

GlaShape BundledShape() {
  GlaShape s;
  s.vocab = 4096;
  s.layers = kLayers;
  s.hidden = 384;
  s.heads = s.kv_heads = 3;
  s.dk = 64;
  s.dv = 128;
  s.intermediate = 1024;
  return s;
}

void BenchMixer(ThreadPool* pool) {
  const GlaShape shape = BundledShape();
  constexpr int32_t kMaxRows = 2048, kSlots = 64;
  StatePool states;
  Mixer mixer(pool, &states);
  const ModelSpec spec = shape.Spec();
  if (!states.Allocate(MakeStateTable(spec), kSlots).ok()) return;
  if (!mixer.Allocate(spec, kMaxRows).ok()) return;
  const std::vector<uint16_t> values = RandomBF16(shape.k_dim() * shape.gate_rank);
  auto gate = PackRows({{values.data(), DType::kBF16, shape.k_dim(), shape.gate_rank}}, pool);
  if (!gate.ok()) return;
  const std::vector<float> norm(PaddedCols(shape.dv), 1.0f), bias(PaddedCols(shape.k_dim()), 3.0f);
  std::vector<float> in = RandomFloats(kMaxRows * PaddedCols(shape.mixer_in_dim()));
  std::vector<float> out(kMaxRows * PaddedCols(shape.out_dim()) + kLineFloats);
  MixArgs args;
  args.in = {in.data(), kMaxRows, shape.mixer_in_dim()};
  MixerWeights weights;
  weights.gate = gate->linear;
  weights.gate_bias = {bias.data(), shape.k_dim()};
  weights.out_norm = {norm.data(), shape.dv};
  args.spec = &std::get<MixerSpec>(spec.layers[0].branches[0].units[0]);
  args.weights = &weights;
  args.out = {out.data(), kMaxRows, shape.out_dim()};
  const auto run = [&](const StepRows& rows) {
    return BestTime([&] {
      for (args.layer = 0; args.layer < kLayers; ++args.layer) mixer.Run(rows, args);
    });
  };
  std::printf("\nToken mixer, all 6 layers       us    us a token\n");
  for (int32_t streams : {1, 4, 16, 64}) {
    std::vector<DecodeRow> decode;
    for (int32_t slot = 0; slot < streams; ++slot) decode.push_back({slot, 0});
    const double seconds = run({.decode = decode.data(), .num_decode = streams});
    std::printf("  recurrence, %3d streams  %8.1f %9.2f\n", streams, seconds * 1e6,
                seconds * 1e6 / streams);
  }
  for (int32_t length : {64, 512, 2048}) {
    const PromptSegment segment = {0, 0, length, nullptr, 0};
    const double seconds = run({.prompts = &segment, .num_prompts = 1});
    std::printf("  chunks, %4d tokens      %8.1f %9.2f\n", length, seconds * 1e6,
                seconds * 1e6 / length);
  }
}

void BenchSampler() {
  constexpr int64_t kVocab = 128 << 10;
  Sampler sampler;
  TokenCounts counts;
  if (!sampler.Allocate(kVocab, kVocab).ok() || !counts.Allocate(1, kVocab).ok()) return;
  std::vector<float> logits = RandomFloats(kVocab);
  for (float& logit : logits) logit *= 3.0f;
  std::printf("\nOne token of 131,072             us\n");
  const auto row = [&](const char* name, const SamplingConfig& config, int32_t table) {
    LogitRow logit_row = {.sampling = &config, .counts = table};
    const double seconds = BestTime([&] {
      ++logit_row.position;
      sampler.Sample(logit_row, logits.data(), Summarize(logits.data(), kVocab), counts);
    });
    std::printf("  %-22s %9.1f\n", name, seconds * 1e6);
  };
  row("greedy", {.temperature = 0.0f}, -1);
  row("temperature", {}, -1);
  row("top-k 40", {.top_k = 40}, -1);
  row("top-p 0.95", {.top_p = 0.95f}, -1);
  row("min-p 0.05", {.min_p = 0.05f}, -1);
  row("typical 0.95", {.typical_p = 0.95f}, -1);
  row("penalties", {.repetition_penalty = 1.1f}, 0);
  const double seconds = BestTime([&] {
    int32_t best[kMaxAlternatives];
    sampler.TopTokens(logits.data(), kMaxAlternatives, best);
  });
  std::printf("  %-22s %9.1f\n", "20 alternatives", seconds * 1e6);
}

}  // namespace

int RunKernelsBench(int threads, bool avx2_only) {
#if HWY_ARCH_X86
  if (avx2_only) hwy::DisableTargets(HWY_AVX3 | HWY_AVX3_DL);
#else
  (void)avx2_only;
#endif
  ThreadPool pool(threads > 0 ? threads : AvailableThreads());
  std::printf("%s, %d thread%s\n\n", SimdName(), pool.threads(), pool.threads() == 1 ? "" : "s");
  std::printf(
      "One core: memcpy of 8 MiB %.1f GB/s, of 256 MiB %.1f GB/s (read and written); fp32 fused "
      "multiply-add "
      "%.1f GFLOP/s\n\n",
      MemcpyBytesPerSecond(8 << 20) * 1e-9, MemcpyBytesPerSecond(256 << 20) * 1e-9,
      FmaPeakFlops() * 1e-9);
  std::printf("GEMM, bf16 weights           | GB/s of weights at M rows           | GFLOP/s\n");
  std::printf("%-28s |", "");
  for (int m : {1, 2, 4, 8, 16, 64, 512}) std::printf(" %6d", m);
  std::printf("\n");
  for (const GemmShape& shape :
       std::vector<GemmShape>{{"mixer input", 1168, 384, kLayers, GemmStore::kSet},
                              {"mixer output", 384, 384, kLayers, GemmStore::kAdd},
                              {"gate and up", 2048, 384, kLayers, GemmStore::kSwiGlu},
                              {"down", 384, 1024, kLayers, GemmStore::kAdd},
                              {"logits", 4096, 384, 1, GemmStore::kSet}}) {
    BenchGemm(&pool, shape);
  }
  BenchMixer(&pool);
  BenchMixers(&pool);
  BenchSampler();
  return 0;
}

}  // namespace sluice
