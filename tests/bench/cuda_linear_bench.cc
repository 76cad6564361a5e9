#include "tests/bench/cuda_linear_bench.h"

#include <algorithm>
#include <cstdio>
#include <functional>
#include <random>
#include <string>
#include <vector>

#include "tests/gpu/linear_kernels.h"

namespace sluice {
namespace {

using cuda::BackGate;
using cuda::LinearDecay;
using cuda::Memory;

// The layers of published 1.3B models, or of their width where there is none.
std::vector<LinearCase> Families() {
  using enum LinearDecay;
  return {
      {.name = "retnet 8x256x512",
       .decay = kConst,
       .q_heads = 8,
       .k_heads = 8,
       .v_heads = 8,
       .state_heads = 8,
       .dk = 256,
       .dv = 512,
       .gate = BackGate::kSilu},
      {.name = "mamba2 64x128x64",
       .decay = kHead,
       .v_heads = 64,
       .state_heads = 64,
       .dk = 128,
       .dv = 64,
       .key_scale = true,
       .norm_spans = 1,
       .gate = BackGate::kSilu,
       .gate_first = true,
       .skip = true},
      {.name = "hgrn2 16x128x128",
       .decay = kKey,
       .q_heads = 16,
       .k_heads = 16,
       .v_heads = 16,
       .state_heads = 16,
       .dk = 128,
       .dv = 128,
       .norm_spans = 1},
      {.name = "transnormer 16x128x128",
       .decay = kConst,
       .q_heads = 16,
       .k_heads = 16,
       .v_heads = 16,
       .state_heads = 16,
       .dk = 128,
       .dv = 128,
       .norm_spans = 1,
       .gate = BackGate::kRaw},
      {.name = "its LRPE 16x256x128",
       .decay = kConst,
       .q_heads = 16,
       .k_heads = 16,
       .v_heads = 16,
       .state_heads = 16,
       .dk = 256,
       .dv = 128,
       .norm_spans = 1,
       .gate = BackGate::kRaw},
      {.name = "linear_attn 4x512x512",
       .q_heads = 4,
       .k_heads = 4,
       .v_heads = 4,
       .state_heads = 4,
       .dk = 512,
       .dv = 512,
       .normaliser = true},
  };
}

// Rows that repeat a few random ones: making them all would take longer than the benchmark.
LinearInputs RepeatedInputs(const LinearCase& c, int64_t rows) {
  constexpr int64_t kDistinct = 256;
  LinearInputs in = RandomLinearInputs(c, kDistinct, 1);
  const auto repeat = [&](std::vector<float>* v) {
    const int64_t width = static_cast<int64_t>(v->size()) / kDistinct;
    v->resize(rows * width);
    for (int64_t i = kDistinct * width; i < rows * width; ++i)
      (*v)[i] = (*v)[i - kDistinct * width];
  };
  for (std::vector<float>* v : {&in.front, &in.log_decay, &in.key_scale, &in.gate}) repeat(v);
  return in;
}

Memory UploadStep(const StepRows& rows, int chunk_capacity, cuda::StepPlan* plan) {
  cuda::StepPacker packer(chunk_capacity, 0);
  std::vector<char> block(cuda::StepPacker::MaxBytes(rows));
  packer.Pack(rows, nullptr, block.data(), plan);
  Memory meta = DeviceBytes(static_cast<int64_t>(block.size()));
  Ok(cudaMemcpy(meta.as<void>(), block.data(), block.size(), cudaMemcpyHostToDevice));
  return meta;
}

void Decode(const CudaTiming& timing, const GpuLimits& limits, const LinearCase& c) {
  constexpr int kSlots = 1024, kMost = 512;
  LinearKernels layer(c, kSlots, kMost);
  layer.Upload(RepeatedInputs(c, kMost));
  std::printf("%-24s", c.name.c_str());
  for (const int batch : {1, 8, 32, 128, 256, 512}) {
    const int sets = std::min(64, kSlots / batch);
    std::vector<Memory> metas;
    for (int i = 0; i < sets; ++i) {
      std::vector<DecodeRow> rows;
      for (int r = 0; r < batch; ++r) rows.push_back({i * batch + r, 0});
      StepRows step;
      step.decode = rows.data();
      step.num_decode = batch;
      cuda::StepPlan plan;
      metas.push_back(UploadStep(step, 8, &plan));
    }
    const double us = timing.Time(sets * (batch < 64 ? 4 : 2), [&](int i) {
      cuda::LinearArgs args = layer.args;
      args.meta = metas[i % sets].as<const cuda::StepHeader>();
      Ok(cuda::LaunchLinearDecode(args, layer.back, layer.decode_buffers, batch, timing.stream()));
    });
    const double floor = 8e6 * static_cast<double>(batch * c.state_floats()) / limits.copy_rate;
    std::printf(" %8.2f %3.0f%%", us, 100 * floor / us);
  }
  std::printf("\n");
}

void Prompts(const CudaTiming& timing, const GpuLimits& limits, const LinearCase& c) {
  constexpr int kRows = 16384;
  LinearKernels layer(c, kRows / 64, kRows);
  layer.Upload(RepeatedInputs(c, kRows));
  const std::vector<int32_t> tokens(kRows);
  for (const int length : {64, 1024, 16384}) {
    std::vector<PromptSegment> prompts;
    for (int i = 0; i < kRows / length; ++i) prompts.push_back({i, 0, length, tokens.data()});
    StepRows step;
    step.prompts = prompts.data();
    step.num_prompts = static_cast<int32_t>(prompts.size());
    cuda::StepPlan plan;
    const Memory meta = UploadStep(step, kRows / 64 + 64, &plan);
    cuda::LinearArgs args = layer.args;
    args.meta = meta.as<const cuda::StepHeader>();
    const cuda::ChunkRange& wave = plan.waves[0];
    const cuda::MixerLaunch mixer = cuda::AsMixerArgs(args, layer.back);
    cudaStream_t s = timing.stream();
    cuda::ChunkBuffers chunk = layer.buffers.chunk;
    chunk.conv = const_cast<__nv_bfloat16*>(args.prompt_front);
    chunk.conv_stride = args.front_stride;
    const cuda::LinearBuffers& b = layer.buffers;
    const bool keys = c.decay == LinearDecay::kKey;
    const std::function<void(int)> parts[] = {
        [&](int) {
          Ok(keys ? cuda::LaunchGlaScores(mixer, chunk, wave, s)
                  : cuda::LaunchLinearScores(args, b, wave, s));
        },
        [&](int) { Ok(cuda::LaunchLinearNormaliser(args, b, wave, s)); },
        [&](int) {
          Ok(keys ? cuda::LaunchGlaSpanSums(mixer, chunk, wave, s)
                  : cuda::LaunchLinearSpanSums(args, b, wave, s));
        },
        [&](int) {
          Ok(keys ? cuda::LaunchGlaScan(mixer, chunk, wave, s)
                  : cuda::LaunchLinearScan(args, b, wave, s));
        },
        [&](int) {
          Ok(keys ? cuda::LaunchGlaChunks(mixer, chunk, wave, s)
                  : cuda::LaunchLinearChunks(args, b, layer.back.out, layer.back.out_stride, wave,
                                             s));
        },
        [&](int) { Ok(cuda::LaunchLinearBack(args, layer.back, b, 0, kRows, s)); }};
    std::printf("%-24s %6d", c.name.c_str(), length);
    for (int part = 0; part < 6; ++part) {
      const bool empty = (part == 1 && !c.normaliser) || (wave.scans == 0 && part / 2 == 1);
      std::printf(" %8.1f", empty ? 0.0 : timing.Time(8, parts[part]));
    }
    const double all = timing.Time(8, [&](int) {
      Ok(cuda::LaunchLinearPrompts(args, layer.back, b, plan.waves, 0, kRows, s));
    });
    // q S and k^T v, and the causal half of scores v; q k^T once for heads that share it.
    const double flop = double{kRows} * (c.out_heads() * (2.0 * c.dk * c.dv + 64.0 * c.dv) +
                                         c.state_heads * 2.0 * c.dk * c.dv +
                                         std::max(c.q_heads, c.k_heads) * 64.0 * c.dk);
    std::printf(" %8.1f %8.0f %8.1f\n", all, flop / all / 1e6, flop / limits.gemm_rate * 1e6);
  }
}

}  // namespace

void CudaLinearBench(const CudaTiming& timing, const GpuLimits& limits) {
  std::printf(
      "\ndecode, one layer's core and back (fp32 state): us, and of the floor of 8 bytes a "
      "state's element\n%-24s",
      "B");
  for (const int batch : {1, 8, 32, 128, 256, 512}) std::printf(" %13d", batch);
  std::printf("\n");
  for (const LinearCase& c : Families()) Decode(timing, limits, c);
  std::printf("\nprompts, one layer's core and back, 16384 tokens in all: us\n%-24s %6s", "", "L");
  for (const char* name :
       {"scores", "z", "sums", "scan", "chunks", "back", "all", "TFLOP/s", "floor"})
    std::printf(" %8s", name);
  std::printf("\n");
  for (const LinearCase& c : Families()) Prompts(timing, limits, c);
}

}  // namespace sluice
