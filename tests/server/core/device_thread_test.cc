#include "server/core/device_thread.h"

#include <atomic>
#include <memory>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/steady_clock.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

using Mode = FakeTransport::Mode;

std::vector<int32_t> Expected(const Request& request) {
  std::vector<int32_t> history = request.prompt;
  for (int32_t i = 0; i < request.stop.max_new_tokens; ++i) {
    history.push_back(FakeBackend::NextToken(history, 4096, request.seed, 0, history.size()));
  }
  return {history.begin() + static_cast<int64_t>(request.prompt.size()), history.end()};
}

TEST(DeviceThreadTest, TokensComeThroughUnchanged) {
  ServerRig rig;
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (uint64_t seed = 0; seed < 30; ++seed) {
    transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
    rig.Submit(transports.back(), MakeTestRequest(40, seed));
  }
  for (uint64_t seed = 0; seed < 30; ++seed) {
    EXPECT_TRUE(transports[seed]->WaitForFinish().ok());
    EXPECT_EQ(transports[seed]->token_ids(), Expected(MakeTestRequest(40, seed)));
  }
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, AClientThatLeftBeforeSubmitCostsTheEngineNothing) {
  ServerRig rig;
  auto transport = std::make_shared<FakeTransport>(Mode::kInline);
  std::shared_ptr<Stream> stream = rig.Open(transport);
  transport->Leave();
  rig.device->Submit(MakeTestRequest(kEndless), std::move(stream));
  EXPECT_TRUE(absl::IsCancelled(transport->WaitForFinish()));
  EXPECT_EQ(rig.fake.engine->stats().requests.value(), 0u);
  EXPECT_TRUE(transport->writes().empty());
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, ACancelledRowIsInNoStepFormedAfter) {
  ServerRig rig;
  for (int round = 0; round < 50; ++round) {
    auto transport = std::make_shared<FakeTransport>(Mode::kInline);
    rig.Submit(transport, MakeTestRequest(kEndless));
    transport->WaitForWrites(1 + round % 7);
    transport->Leave();
    // At most the step being formed at that moment has a row of it.
    const uint64_t steps = rig.fake.engine->stats().steps.value();
    EXPECT_TRUE(absl::IsCancelled(transport->WaitForFinish()));
    SpinUntil([&] { return rig.device->live_requests() == 0; });
    EXPECT_LE(rig.fake.engine->stats().steps.value(), steps + 1);
  }
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, AFullRingPausesItsRequestAlone) {
  StreamLimits limits;
  limits.ring_events = 16;
  ServerRig rig(limits);
  auto slow = std::make_shared<FakeTransport>();
  rig.Submit(slow, MakeTestRequest(1000, 7));
  slow->WaitForWrites(1);
  SpinUntil([&] { return rig.fake.engine->stats().paused.value() == 1; });
  EXPECT_EQ(slow->writes().size(), 1u);

  auto good = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(good, MakeTestRequest(200, 8));
  EXPECT_TRUE(good->WaitForFinish().ok());
  EXPECT_EQ(slow->writes().size(), 1u);

  // Each completion makes room, which wakes the device thread: nothing else would.
  while (!slow->finished()) {
    if (!slow->Complete(true)) std::this_thread::yield();
  }
  EXPECT_TRUE(slow->WaitForFinish().ok());
  EXPECT_EQ(slow->token_ids(), Expected(MakeTestRequest(1000, 7)));
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, AStallFreesSlotAndPermitAtOnce) {
  StreamLimits limits;
  limits.ring_events = 16;
  ServerRig rig(limits);
  auto deaf = std::make_shared<FakeTransport>();
  rig.Submit(deaf, MakeTestRequest(kEndless));
  deaf->WaitForWrites(1);
  SpinUntil([&] { return rig.fake.engine->stats().paused.value() == 1; });
  EXPECT_EQ(rig.fake.engine->stats().slots_used.value(), 1);
  rig.fake.clock.Advance(absl::Seconds(12));
  // Anything that rings makes the emitter look at the clock.
  auto other = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(other, MakeTestRequest(1));
  deaf->WaitForTryCancel();
  SpinUntil([&] { return rig.device->live_requests() == 0 && rig.admission.permits() == 0; });
  SpinUntil([&] { return rig.fake.engine->stats().slots_used.value() == 0; });
  EXPECT_EQ(rig.emitter.stats().slow_readers.value(), 1u);
  EXPECT_EQ(rig.emitter.stats().ring_bytes.load(), 0);
  EXPECT_FALSE(deaf->finished());
  deaf->Complete(false);
  EXPECT_TRUE(absl::IsCancelled(deaf->WaitForFinish()));
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, ADeadlineWakesTheSleepingThread) {
  FakeEngine fake;
  SteadyClock clock;
  EngineOptions options;
  options.slots = 8;
  options.max_batch_tokens = 16;
  Engine engine(&fake.backend, fake.model.get(), &BundledTokenizer(), &clock, options);
  Admission admission{AdmissionLimits{}, &clock};
  Emitter emitter(&clock, {.ring_events = 16});
  DeviceThread device(&engine, &clock, &emitter);
  auto transport =
      std::make_shared<FakeTransport>();  // never reads: the request is paused, the thread asleep
  auto stream = Stream::Create(transport, &emitter, std::move(*admission.Admit(3)), 1);
  transport->set_stream(stream);
  Request request = MakeTestRequest(kEndless);
  request.deadline = clock.Now() + absl::Milliseconds(50);
  device.Submit(std::move(request), std::move(stream));
  SpinUntil([&] { return device.live_requests() == 0; });
  EXPECT_GE(clock.Now(), request.deadline);
  while (!transport->finished()) {
    if (!transport->Complete(true)) std::this_thread::yield();
  }
  EXPECT_TRUE(absl::IsDeadlineExceeded(transport->WaitForFinish()));
  device.Stop();
  emitter.Stop();
}

TEST(DeviceThreadTest, ADeviceFaultEndsEveryStreamAndIsToldOnce) {
  ServerRig rig({}, nullptr, /*fail_after_steps=*/100);
  std::atomic<int> faults{0};
  rig.device->set_on_device_fault([&](absl::Status status) {
    EXPECT_FALSE(status.ok());
    ++faults;
  });
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (int i = 0; i < 20; ++i) {
    transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
    rig.Submit(transports.back(), MakeTestRequest(kEndless, i));
  }
  for (const auto& transport : transports)
    EXPECT_TRUE(absl::IsUnavailable(transport->WaitForFinish()));
  SpinUntil([&] { return !rig.device->device_status().ok(); });
  auto late = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(late, MakeTestRequest(1));
  EXPECT_TRUE(absl::IsUnavailable(late->WaitForFinish()));
  SpinUntil([&] { return faults.load() == 1; });
  rig.device->Stop();
  EXPECT_EQ(faults.load(), 1);
  EXPECT_EQ(rig.device->live_requests(), 0);
  int told_late = 0;
  rig.device->set_on_device_fault([&](absl::Status) { ++told_late; });
  EXPECT_EQ(told_late, 1);
  SpinUntil([&] { return rig.emitter.live_streams() == 0; });
  EXPECT_EQ(rig.admission.permits(), 0);
}

TEST(DeviceThreadTest, StopClosesWhatRunsAndWhatComesLater) {
  ServerRig rig;
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (int i = 0; i < 20; ++i) {
    transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
    rig.Submit(transports.back(), MakeTestRequest(kEndless, i));
  }
  transports[0]->WaitForWrites(3);
  rig.device->Stop();
  EXPECT_EQ(rig.device->live_requests(), 0);
  transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
  rig.Submit(transports.back(), MakeTestRequest(1));
  for (const auto& transport : transports)
    EXPECT_TRUE(absl::IsUnavailable(transport->WaitForFinish()));
  rig.ExpectNothingLeft();
}

TEST(DeviceThreadTest, CloseAllGoesOnRefusing) {
  ServerRig rig;
  auto running = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(running, MakeTestRequest(kEndless));
  running->WaitForWrites(3);
  rig.device->CloseAll();
  EXPECT_TRUE(absl::IsUnavailable(running->WaitForFinish()));
  auto late = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(late, MakeTestRequest(1));
  EXPECT_TRUE(absl::IsUnavailable(late->WaitForFinish()));
  rig.ExpectNothingLeft();
}

}  // namespace
}  // namespace sluice
