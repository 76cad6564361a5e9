// sluice_bench kernels --device=cuda.
#include <cuda_runtime_api.h>

#include <algorithm>
#include <cstdio>
#include <functional>
#include <string>
#include <vector>

#include "kernels/cuda/gemm_rows.h"
#include "kernels/cuda/layout.h"
#include "kernels/cuda/mixer.h"
#include "kernels/cuda/step_runner.h"
#include "tests/bench/cuda_benches.h"
#include "tests/bench/cuda_families_bench.h"
#include "tests/bench/cuda_linear_bench.h"
#include "tests/bench/cuda_steps_bench.h"
#include "tests/bench/cuda_timing.h"
#include "tests/bench/random_model.h"

namespace sluice {
namespace {

using cuda::Memory;
using Bf16 = __nv_bfloat16;

struct Gpu {
  CudaTiming timing;
  GpuLimits limits;
};

// The mixer's inputs and buffers outside a backend.
struct MixerBench {
  MixerBench(int64_t rows, int slots) : shape(Shape13B()) {
    shape.layers = 1;
    states = DeviceBytes(int64_t{slots} * shape.kv_heads * shape.dk * shape.dv * 4);
    in = RandomBf16(rows * cuda::Stride(shape.mixer_in_dim()), 1.0f);
    out = DeviceBytes(rows * cuda::Stride(shape.out_dim()) * 2);
    gate = RandomBf16(shape.k_dim() * 64, 0.25f);
    std::vector<float> bias(shape.k_dim(), 4.0f), ones(shape.dv, 1.0f);
    gate_bias = DeviceBytes(bias.size() * 4);
    norm = DeviceBytes(ones.size() * 4);
    Ok(cudaMemcpy(gate_bias.as<void>(), bias.data(), bias.size() * 4, cudaMemcpyHostToDevice));
    Ok(cudaMemcpy(norm.as<void>(), ones.data(), ones.size() * 4, cudaMemcpyHostToDevice));
    const ModelSpec spec = shape.Spec();
    args = cuda::StepRunner::GlaArgs(std::get<MixerSpec>(spec.layers[0].branches[0].units[0]));
    args.in = in.as<Bf16>();
    args.in_stride = cuda::Stride(shape.mixer_in_dim());
    args.gate = gate.as<Bf16>();
    args.gate_stride = 64;
    args.gate_bias = gate_bias.as<float>();
    args.head_norm = norm.as<float>();
    args.out = out.as<Bf16>();
    args.out_stride = cuda::Stride(shape.out_dim());
    args.states = states.as<float>();
    args.slot_stride = shape.kv_heads * shape.dk * shape.dv;
  }
  GlaShape shape;
  Memory states, in, out, gate, gate_bias, norm;
  cuda::MixerLaunch args;
};

Memory UploadStep(const StepRows& rows, int chunk_capacity, cuda::StepPlan* plan) {
  cuda::StepPacker packer(chunk_capacity, cuda::LongestShortPrompt());
  std::vector<char> block(cuda::StepPacker::MaxBytes(rows));
  packer.Pack(rows, nullptr, block.data(), plan);
  Memory meta = DeviceBytes(static_cast<int64_t>(block.size()));
  Ok(cudaMemcpy(meta.as<void>(), block.data(), block.size(), cudaMemcpyHostToDevice));
  return meta;
}

void Decode(const Gpu& gpu) {
  constexpr int kSlots = 2048;
  MixerBench bench(1024, kSlots);
  std::printf(
      "\ndecode mixer, one layer (gate, recurrence, head norm, output gate; fp32 state)\n%6s %9s "
      "%8s %9s\n",
      "B", "us", "GB/s", "of copy");
  for (const int batch : {1, 8, 32, 64, 128, 256, 512, 1024}) {
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
    const double us = gpu.timing.Time(sets * (batch < 64 ? 4 : 1), [&](int i) {
      cuda::MixerLaunch args = bench.args;
      args.meta = metas[i % sets].as<const cuda::StepHeader>();
      Ok(cuda::LaunchGlaDecode(args, batch, gpu.timing.stream()));
    });
    const double bytes = batch * 4.0 * 256 * 512 * 8;
    std::printf("%6d %9.2f %8.0f %8.1f%%\n", batch, us, bytes / us / 1e3,
                100 * bytes / us * 1e6 / gpu.limits.copy_rate);
  }
}

void Gemm(const Gpu& gpu) {
  constexpr int kRows = 1024;
  std::printf(
      "\nproducts for decode rows: us, and of the floor max(bytes / copy rate, FLOP / GEMM "
      "rate)\n%-10s",
      "rows");
  for (const NamedProduct& p : kProducts) std::printf(" %17s", p.name);
  std::printf("\n");
  Memory x = RandomBf16(int64_t{kRows} * 5632, 1.0f), y = DeviceBytes(int64_t{kRows} * 32000 * 4);
  auto lt = gpu.timing.Library();
  for (const bool library : {false, true}) {
    for (const int rows : {1, 8, 16, 32, 64, 128, 256, 512, 1024}) {
      if (library && rows < 16) continue;
      std::printf("%4d%-6s", rows, library ? " lib" : "");
      for (const NamedProduct& p : kProducts) {
        const int copies = static_cast<int>(std::max<int64_t>(2, 400'000'000 / (p.n * p.k * 2)));
        Memory w = RandomBf16(copies * p.n * p.k, 1.0f);
        const double us = gpu.timing.Time(copies, [&](int i) {
          const Bf16* weight = w.as<Bf16>() + int64_t{i} * p.n * p.k;
          const int64_t valid = p.store == cuda::RowStore::kSwiGlu ? p.n / 2 : p.n;
          if (library) {
            Ok(lt->Run({x.as<Bf16>(), weight, y.as<void>(), rows, p.n, p.k, cuda::Stride(p.n),
                        LibraryStore(p.store)},
                       gpu.timing.stream()));
          } else {
            Ok(cuda::LaunchGemmRows({x.as<Bf16>(), p.k, weight, y.as<void>(), cuda::Stride(valid),
                                     rows, static_cast<int>(p.n), static_cast<int>(valid), p.store},
                                    gpu.timing.stream()));
          }
        });
        const double floor = std::max(2e6 * p.n * p.k / gpu.limits.copy_rate,
                                      2e6 * rows * p.n * p.k / gpu.limits.gemm_rate);
        std::printf(" %9.2f %6.1f%%", us, 100 * floor / us);
      }
      std::printf("\n");
    }
  }
}

void PromptMixer(const Gpu& gpu) {
  constexpr int kRows = 16384;
  std::printf(
      "\nprompt mixer, one layer, %d tokens in all: us (floor of the kernels' own bytes and FLOP "
      "not shown)\n%6s",
      kRows, "L");
  for (const char* name : {"scores", "sums", "scan", "chunks", "norm", "all", "TFLOP/s"})
    std::printf(" %8s", name);
  std::printf("\n");
  const std::vector<int32_t> tokens(kRows);
  MixerBench bench(kRows, kRows / 64);
  const int chunks = kRows / 64 + 64;
  Memory q = DeviceBytes(int64_t{chunks} * 4 * 64 * 256 * 2),
         k = DeviceBytes(int64_t{chunks} * 4 * 64 * 256 * 2);
  Memory scores = DeviceBytes(int64_t{chunks} * 4 * 64 * 64 * 2),
         decay = DeviceBytes(int64_t{chunks} * 4 * 256 * 4);
  Memory carry = DeviceBytes(int64_t{chunks / 8 + 1} * 4 * 256 * 512 * 4);
  Memory span_decay = DeviceBytes(int64_t{chunks / 8 + 1} * 4 * 256 * 4);
  for (const int length : {64, 256, 1024, 2048, 4096, 8192, 16384}) {
    std::vector<PromptSegment> prompts;
    for (int i = 0; i < kRows / length; ++i) prompts.push_back({i, 0, length, tokens.data()});
    StepRows step;
    step.prompts = prompts.data();
    step.num_prompts = static_cast<int32_t>(prompts.size());
    cuda::StepPlan plan;
    Memory meta = UploadStep(step, chunks, &plan);
    cuda::MixerLaunch args = bench.args;
    args.meta = meta.as<const cuda::StepHeader>();
    cuda::ChunkBuffers buffers;
    buffers.key_stride = 256;
    buffers.q = q.as<Bf16>();
    buffers.k = k.as<Bf16>();
    buffers.scores = scores.as<Bf16>();
    buffers.decay = decay.as<float>();
    buffers.carry = carry.as<float>();
    buffers.span_decay = span_decay.as<float>();
    const cuda::ChunkRange& wave = plan.waves[0];
    const std::function<void(int)> parts[] = {
        [&](int) { Ok(cuda::LaunchGlaScores(args, buffers, wave, gpu.timing.stream())); },
        [&](int) { Ok(cuda::LaunchGlaSpanSums(args, buffers, wave, gpu.timing.stream())); },
        [&](int) { Ok(cuda::LaunchGlaScan(args, buffers, wave, gpu.timing.stream())); },
        [&](int) { Ok(cuda::LaunchGlaChunks(args, buffers, wave, gpu.timing.stream())); },
        [&](int) { Ok(cuda::LaunchHeadNorm(args, buffers, 0, kRows, gpu.timing.stream())); }};
    std::printf("%6d", length);
    for (const auto& part : parts)
      std::printf(" %8.1f", wave.scans == 0 && (&part == &parts[1] || &part == &parts[2])
                                ? 0.0
                                : gpu.timing.Time(8, part));
    const double all = gpu.timing.Time(8, [&](int i) {
      for (const auto& part : parts) part(i);
    });
    // q S, k^T v, and the causal halves of q k^T and of scores v.
    const double flop = double{kRows} * 4 * (2.0 * 256 * 512 * 2 + 64.0 * (256 + 512));
    std::printf(" %8.1f %8.0f\n", all, flop / all / 1e6);
  }
}

}  // namespace

int RunCudaKernelsBench(int device, const std::vector<std::string>& parts) {
  const auto wants = [&](const char* part) {
    return parts.empty() || std::find(parts.begin(), parts.end(), part) != parts.end();
  };
  std::setvbuf(stdout, nullptr, _IOLBF, 1 << 12);
  Gpu gpu = {CudaTiming(device), {}};
  gpu.limits = gpu.timing.MeasureLimits();
  if (wants("decode")) Decode(gpu);
  if (wants("gemm")) Gemm(gpu);
  if (wants("mixer")) PromptMixer(gpu);
  if (wants("linear")) CudaLinearBench(gpu.timing, gpu.limits);
  if (wants("families")) CudaFamiliesBench(device, gpu.limits, parts);
  if (wants("step") || wants("mixed") || wants("prefill"))
    CudaStepsBench(device, gpu.limits, wants("step"), wants("mixed"), wants("prefill"));
  return 0;
}

}  // namespace sluice
