// sluice_bench engine: decode and prefill of a checkpoint through the engine, without gRPC.
#ifndef SLUICE_TESTS_BENCH_ENGINE_BENCH_H_
#define SLUICE_TESTS_BENCH_ENGINE_BENCH_H_

#include <string>

namespace sluice {

struct EngineBenchOptions {
  std::string model;  // directory
  int gpu = -1;       // -1: the CPU
  int threads = 0;    // of the CPU; 0: all
  bool batch_invariant = true;
  bool json = false;
};

// Prints a table, or one JSON object; returns the process's exit code.
int RunEngineBench(const EngineBenchOptions& options);

}  // namespace sluice

#endif  // SLUICE_TESTS_BENCH_ENGINE_BENCH_H_
