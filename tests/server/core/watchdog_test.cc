#include "server/core/watchdog.h"

#include <atomic>
#include <future>

#include "gtest/gtest.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

TEST(WatchdogTest, NoticesAStepThatDoesNotEnd) {
  std::promise<void> hanging;
  std::promise<void> release;
  FakeEngine fake;
  bool first = true;
  fake.backend.set_before_await([&] {
    if (!std::exchange(first, false)) return;
    hanging.set_value();
    release.get_future().wait();
  });
  Emitter emitter(&fake.clock, {});
  DeviceThread device(fake.engine.get(), &fake.clock, &emitter);
  Admission admission(AdmissionLimits{}, &fake.clock);
  std::promise<absl::Duration> stuck;
  Watchdog watchdog(&device, &fake.clock, absl::Seconds(5),
                    [&](absl::Duration running) { stuck.set_value(running); });
  auto transport = std::make_shared<FakeTransport>(FakeTransport::Mode::kInline);
  auto stream = Stream::Create(transport, &emitter, std::move(*admission.Admit(3)), 1);
  transport->set_stream(stream);
  fake.clock.Advance(absl::Seconds(1));
  device.Submit(MakeTestRequest(4), std::move(stream));
  hanging.get_future().wait();
  // A step as long as the bound is no hang.
  fake.clock.Advance(absl::Seconds(5));
  std::future<absl::Duration> told = stuck.get_future();
  EXPECT_EQ(told.wait_for(std::chrono::milliseconds(600)), std::future_status::timeout);
  fake.clock.Advance(absl::Seconds(1));
  EXPECT_EQ(told.get(), absl::Seconds(6));
  release.set_value();
  // A transport and its stream hold each other until then.
  EXPECT_TRUE(transport->WaitForFinish().ok());
  device.Stop();
  emitter.Stop();
}

TEST(WatchdogTest, LeavesAnIdleDeviceAlone) {
  ServerRig rig;
  std::atomic<bool> told{false};
  {
    Watchdog watchdog(rig.device.get(), &rig.fake.clock, absl::Milliseconds(4),
                      [&](absl::Duration) { told = true; });
    for (int i = 0; i < 50; ++i) {
      rig.fake.clock.Advance(absl::Hours(1));
      std::this_thread::sleep_for(std::chrono::milliseconds(1));
    }
  }
  EXPECT_FALSE(told);
}

}  // namespace
}  // namespace sluice
