// sluice_bench kernels | engine | tune: what a backend and the engine on top of it do on this
// machine.
#include <cstdio>
#include <string>

#include "absl/flags/flag.h"
#include "absl/flags/parse.h"
#include "absl/flags/usage.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "tests/bench/cuda_benches.h"
#include "tests/bench/engine_bench.h"
#include "tests/bench/kernels_bench.h"

ABSL_FLAG(std::string, model, "deploy/models/classics-12m", "engine: directory of the checkpoint");
ABSL_FLAG(int, threads, 0, "threads of the CPU backend; 0: all");
ABSL_FLAG(bool, json, false, "engine: print one JSON object instead of a table");
ABSL_FLAG(bool, avx2, false, "kernels: do not use AVX-512");

ABSL_FLAG(std::string, device, "cpu", "cpu, cuda or cuda:N");
ABSL_FLAG(bool, batch_invariant, true, "engine, on a GPU: as sluiced's");
ABSL_FLAG(std::string, parts, "",
          "kernels, on a GPU: some of decode,gemm,mixer,linear,families,step,mixed,prefill; with "
          "families, names of those wanted; empty: all");

namespace {

// The GPU's number, -1: the CPU, -2: neither.
int GpuOf(absl::string_view device) {
  int number = 0;
  if (device == "cpu") return -1;
  if (!absl::ConsumePrefix(&device, "cuda")) return -2;
  if (device.empty()) return 0;
  return absl::ConsumePrefix(&device, ":") && absl::SimpleAtoi(device, &number) && number >= 0
             ? number
             : -2;
}

}  // namespace

int main(int argc, char** argv) {
  absl::SetProgramUsageMessage("sluice_bench kernels|engine|tune [flags]");
  const std::vector<char*> arguments = absl::ParseCommandLine(argc, argv);
  const std::string command = arguments.size() == 2 ? arguments[1] : "";
  const int gpu = GpuOf(absl::GetFlag(FLAGS_device));
  if (gpu == -2) {
    std::fprintf(stderr, "sluice_bench: --device must be cpu, cuda or cuda:N\n");
    return 2;
  }
  if (command == "kernels" && gpu >= 0) {
    return sluice::RunCudaKernelsBench(
        gpu, absl::StrSplit(absl::GetFlag(FLAGS_parts), ',', absl::SkipEmpty()));
  }
  if (command == "kernels")
    return sluice::RunKernelsBench(absl::GetFlag(FLAGS_threads), absl::GetFlag(FLAGS_avx2));
  if (command == "engine") {
    sluice::EngineBenchOptions options;
    options.model = absl::GetFlag(FLAGS_model);
    options.gpu = gpu;
    options.threads = absl::GetFlag(FLAGS_threads);
    options.batch_invariant = absl::GetFlag(FLAGS_batch_invariant);
    options.json = absl::GetFlag(FLAGS_json);
    return sluice::RunEngineBench(options);
  }
  if (command == "tune") return sluice::RunCudaTune(gpu < 0 ? 0 : gpu);
  std::fprintf(stderr, "usage: sluice_bench kernels|engine|tune [flags]; --help lists them\n");
  return 2;
}
