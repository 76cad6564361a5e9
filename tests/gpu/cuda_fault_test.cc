// A kernel's fault in a process of its own: every request ends with UNAVAILABLE, the error stays,
// and the device is not touched again.
#include <gtest/gtest.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <vector>

#include "tests/fakes/recording_sink.h"
#include "tests/gpu/engine_on_gpu.h"
#include "tests/gpu/fault.h"

namespace sluice {
namespace {

void Expect(bool good, const char* what) {
  if (good) return;
  std::fprintf(stderr, "not so: %s\n", what);
  std::_Exit(1);
}

[[noreturn]] void RunInto(void (*cause)()) {
  EngineOnGpu gpu(BundledModel(), 8, 1024);
  std::vector<std::shared_ptr<RecordingSink>> sinks;
  for (uint64_t i = 0; i < 12; ++i) {  // some wait for a slot
    Request request;
    request.prompt = RandomTokens(20, gpu.vocab, i);
    request.stop.max_new_tokens = 100000;
    request.stop.ignore_eos = true;
    request.output.token_ids = true;
    sinks.push_back(std::make_shared<RecordingSink>());
    gpu.engine->Submit(std::move(request), sinks.back());
  }
  for (int i = 0; i < 50; ++i) gpu.engine->Step();
  Expect(gpu.engine->device_status().ok(), "well before the fault");
  Expect(!sinks[0]->token_ids[0].empty(), "tokens before the fault");
  std::vector<float> state(1 << 20);

  cause();
  const auto begin = std::chrono::steady_clock::now();
  while (gpu.engine->Step()) {
  }
  const double ms =
      std::chrono::duration<double, std::milli>(std::chrono::steady_clock::now() - begin).count();
  Expect(!gpu.engine->device_status().ok(), "the engine knows");
  for (const auto& sink : sinks) {
    Expect(sink->status.has_value() && absl::IsUnavailable(*sink->status), "UNAVAILABLE");
    Expect(sink->finished.empty(), "nobody finished");
  }
  const absl::Status latched = gpu.backend->Await(gpu.backend->ZeroState(0));
  Expect(latched == gpu.engine->device_status(), "the first error stays");
  Expect(gpu.backend->Done(gpu.backend->ReadState(0, state.data(), 0)), "nothing waits");
  Expect(gpu.backend->Await(gpu.backend->WriteState(1, state.data(), 0)) == latched, "it stays");
  auto late = std::make_shared<RecordingSink>();
  Request request;
  request.prompt = {1};
  gpu.engine->Submit(std::move(request), late);
  Expect(late->status.has_value() && absl::IsUnavailable(*late->status), "later calls too");
  std::fprintf(stderr, "%.1f ms to the end of every request: %s\n", ms,
               std::string(latched.message()).c_str());
  std::_Exit(70);
}

// gtest wants what ends the process to be one statement.
[[noreturn]] void RunIntoFault() {
  RunInto([] { CauseFault(0); });
}
[[noreturn]] void RunIntoHang() {
  RunInto([] { CauseHang(0, 60); });
}

TEST(CudaFaultTest, AKernelsFaultEndsEveryRequestAndStays) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(RunIntoFault(), testing::ExitedWithCode(70), "illegal memory access");
}

TEST(CudaFaultTest, ADeviceThatHangsIsAFault) {
  testing::GTEST_FLAG(death_test_style) = "threadsafe";
  EXPECT_EXIT(RunIntoHang(), testing::ExitedWithCode(70), "has done nothing for 10 s");
}

}  // namespace
}  // namespace sluice
