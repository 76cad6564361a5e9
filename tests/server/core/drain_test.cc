#include "server/core/drain.h"

#include <memory>
#include <thread>
#include <vector>

#include "gtest/gtest.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

using Mode = FakeTransport::Mode;

TEST(DrainTest, AnIdleServerStopsAtOnce) {
  ServerRig rig;
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter, {});
  EXPECT_EQ(drain.state(), DrainState::kServing);
  EXPECT_EQ(drain.Run(), 0);
  EXPECT_EQ(drain.state(), DrainState::kStopped);
  EXPECT_TRUE(absl::IsUnavailable(rig.admission.Admit(1).status()));
  rig.ExpectNothingLeft();
}

TEST(DrainTest, RunningStreamsGoOnToTheirEnd) {
  ServerRig rig;
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (int i = 0; i < 50; ++i) {
    transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
    rig.Submit(transports.back(), MakeTestRequest(30, i));
  }
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter, {.drain = absl::Minutes(10)});
  EXPECT_EQ(drain.Run(), 0);
  for (const auto& transport : transports) {
    EXPECT_TRUE(transport->WaitForFinish().ok());
    EXPECT_EQ(transport->token_ids().size(), 30u);
  }
  rig.ExpectNothingLeft();
}

TEST(DrainTest, WhatIsLeftAfterTheBoundIsUnavailable) {
  ServerRig rig;
  std::vector<std::shared_ptr<FakeTransport>> transports;
  for (int i = 0; i < 50; ++i) {
    transports.push_back(std::make_shared<FakeTransport>(Mode::kInline));
    rig.Submit(transports.back(), MakeTestRequest(kEndless, i));
  }
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter,
              {.drain = absl::Milliseconds(20), .flush = absl::Minutes(10)});
  EXPECT_EQ(drain.Run(), 0);
  for (const auto& transport : transports)
    EXPECT_TRUE(absl::IsUnavailable(transport->WaitForFinish()));
  rig.ExpectNothingLeft();
}

TEST(DrainTest, ASecondSignalCutsTheWaitShort) {
  ServerRig rig;
  auto transport = std::make_shared<FakeTransport>(Mode::kInline);
  rig.Submit(transport, MakeTestRequest(kEndless));
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter,
              {.drain = absl::Hours(1), .flush = absl::Minutes(10)});
  std::thread runner([&] { EXPECT_EQ(drain.Run(), 0); });
  SpinUntil([&] { return drain.state() == DrainState::kDraining; });
  drain.Hurry();
  runner.join();
  EXPECT_TRUE(absl::IsUnavailable(transport->WaitForFinish()));
  rig.ExpectNothingLeft();
}

TEST(DrainTest, AReaderThatStallsIsCancelled) {
  ServerRig rig;
  auto transport = std::make_shared<FakeTransport>();
  FakeTransport* raw = transport.get();
  transport->set_on_try_cancel([raw] { raw->Complete(false); });
  rig.Submit(transport, MakeTestRequest(kEndless));
  transport->WaitForWrites(1);
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter,
              {.drain = absl::Milliseconds(5), .flush = absl::Seconds(1)});
  EXPECT_EQ(drain.Run(), 0);
  EXPECT_FALSE(transport->WaitForFinish().ok());
  EXPECT_EQ(transport->try_cancels(), 1);
  rig.ExpectNothingLeft();
}

TEST(DrainTest, ATransportThatNeverCompletesIsReportedNotWaitedFor) {
  ServerRig rig;
  auto transport = std::make_shared<FakeTransport>();
  rig.Submit(transport, MakeTestRequest(kEndless));
  transport->WaitForWrites(1);
  Drain drain(&rig.admission, rig.device.get(), &rig.emitter,
              {.drain = absl::Milliseconds(5), .flush = absl::Milliseconds(5)});
  EXPECT_EQ(drain.Run(), 1);
  EXPECT_EQ(drain.state(), DrainState::kStopped);
  transport->Complete(false);
  EXPECT_FALSE(transport->WaitForFinish().ok());
  rig.ExpectNothingLeft();
}

}  // namespace
}  // namespace sluice
