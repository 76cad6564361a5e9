// Tests what a stop does about sessions that are not on disk yet, on disks that are slow, hang or
// refuse.

#include <algorithm>
#include <atomic>
#include <condition_variable>
#include <memory>
#include <mutex>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "engine/state/session_store.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_files.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

using Mode = FakeTransport::Mode;

// A disk whose writes end when the test lets them.
class SlowFiles : public FakeFiles {
 public:
  absl::Status WriteNew(const std::string& path,
                        absl::Span<const absl::string_view> pieces) override {
    std::unique_lock<std::mutex> lock(mutex_);
    waits_ = true;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !stuck_; });
    waits_ = false;
    return FakeFiles::WriteNew(path, pieces);
  }
  void Stick(bool stuck) {
    std::lock_guard<std::mutex> lock(mutex_);
    stuck_ = stuck;
    changed_.notify_all();
  }
  void WaitForWriter() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return waits_; });
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool stuck_ = false;
  bool waits_ = false;
};

std::unique_ptr<SessionStore> OpenStore(Files* files) {
  // Shared, so that what is on the disk can be looked at beside the one that writes.
  auto store = SessionStore::Open(files, "/d", {"model", MakeStateTable(FakeSpec())},
                                  StoreOptions{.shared = true, .about = "a test"});
  EXPECT_TRUE(store.ok()) << store.status();
  SLUICE_CHECK(store.ok());
  return *std::move(store);
}

EngineOptions WithStore() {
  EngineOptions options;
  options.fingerprint = "model";
  options.has_store = true;
  return options;
}

std::string Name(int i) { return "s" + std::to_string(i); }

class FlushTest : public testing::Test {
 protected:
  FlushTest() {
    device = std::make_unique<DeviceThread>(fake.engine.get(), &fake.clock, &emitter, thread.get());
  }
  ~FlushTest() override {
    files.Stick(false);
    device->Stop();
    thread.reset();  // gives back what hung
    emitter.Stop();
  }

  // Creates a new session, and expects OK.
  void Create(int i) {
    std::atomic<bool> done{false};
    ASSERT_TRUE(device->Post([&](Sessions& sessions) {
      sessions.Create("", {.id = Name(i)}, [&](absl::StatusOr<SessionInfo> info) {
        EXPECT_TRUE(info.ok()) << info.status();
        done = true;
      });
    }));
    SpinUntil([&] { return done.load(); });
  }
  std::shared_ptr<FakeTransport> Call(int i, bool durable) {
    auto transport = std::make_shared<FakeTransport>(Mode::kInline);
    auto stream = Stream::Create(transport, &emitter, std::move(*admission.Admit(3)), 1);
    transport->set_stream(stream);
    Request request = MakeTestRequest(5, i);
    request.session_id = Name(i);
    request.durable = durable;
    device->Submit(std::move(request), std::move(stream));
    return transport;
  }
  void Commit(int i) { ASSERT_TRUE(Call(i, /*durable=*/false)->WaitForFinish().ok()); }

  // Sessions that another process finds at the position after Commit.
  int Written() {
    const auto other = OpenStore(&files);
    const auto index = other->TakeIndex();
    return static_cast<int>(std::count_if(index.begin(), index.end(), [&](const SessionName& name) {
      const auto record = other->ReadRecord(name.tenant, name.id);
      return record.ok() && record->info.position == 8;
    }));
  }

  FakeEngine fake{{}, 8, 16, WithStore()};
  Admission admission{AdmissionLimits{}, &fake.clock};
  Emitter emitter{&fake.clock, {}};
  SlowFiles files;
  std::unique_ptr<SessionStore> store = OpenStore(&files);
  std::unique_ptr<StoreThread> thread =
      std::make_unique<StoreThread>([this](StoreJob* job) { RunStoreJob(store.get(), job); });
  std::unique_ptr<DeviceThread> device;
};

TEST_F(FlushTest, WhatASlowDiskTakesWithinTheBoundIsThere) {
  for (int i = 0; i < 10; ++i) Create(i);
  files.Stick(true);
  for (int i = 0; i < 10; ++i) Commit(i);
  files.WaitForWriter();
  DeviceThread::Rest rest;
  std::thread stopper([&] { rest = device->Stop(absl::Seconds(10)); });
  files.Stick(false);
  stopper.join();
  EXPECT_EQ(rest.unwritten_sessions, 0);
  EXPECT_FALSE(rest.store_hangs);
  EXPECT_EQ(Written(), 10);
}

TEST_F(FlushTest, ADiskThatHangsIsWaitedForNoLongerThanTheBound) {
  for (int i = 0; i < 10; ++i) Create(i);
  files.Stick(true);
  for (int i = 0; i < 9; ++i) Commit(i);
  const auto durable = Call(9, /*durable=*/true);
  std::atomic<bool> refused{false};
  ASSERT_TRUE(device->Post([&](Sessions& sessions) {
    sessions.Create("", {.id = "late"}, [&](absl::StatusOr<SessionInfo> info) {
      EXPECT_TRUE(absl::IsUnavailable(info.status())) << info.status();
      refused = true;
    });
  }));
  files.WaitForWriter();
  DeviceThread::Rest rest;
  std::atomic<bool> stopped{false};
  std::thread stopper([&] {
    rest = device->Stop(absl::Seconds(10));
    stopped = true;
  });
  // By the clock that the bound is measured with; a look before its end ends nothing.
  SpinUntil([&] { return !device->Post([](Sessions&) {}); });
  fake.clock.Advance(absl::Seconds(9));
  device->Wake();
  EXPECT_FALSE(stopped.load());
  fake.clock.Advance(absl::Seconds(1));
  device->Wake();
  stopper.join();
  EXPECT_EQ(rest.unwritten_sessions, 9);
  EXPECT_TRUE(rest.store_hangs);
  EXPECT_TRUE(absl::IsUnavailable(durable->WaitForFinish()));
  EXPECT_TRUE(refused.load());
  EXPECT_EQ(device->live_requests(), 0);
}

TEST_F(FlushTest, AHurriedStopDoesNotWaitForTheDisk) {
  Create(0);
  files.Stick(true);
  Commit(0);
  files.WaitForWriter();
  DeviceThread::Rest rest;
  std::thread stopper([&] { rest = device->Stop(); });
  device->HurryStop();
  stopper.join();
  EXPECT_EQ(rest.unwritten_sessions, 1);
  EXPECT_TRUE(rest.store_hangs);
}

TEST_F(FlushTest, AFailedWriteIsTriedOnceMore) {
  Create(0);
  files.FailAt(0, absl::UnavailableError("broken"));
  Commit(0);
  SpinUntil([&] { return fake.engine->stats().store_errors.value() == 1; });
  // The next try would come after a second of a clock that stands still.
  const DeviceThread::Rest rest = device->Stop(absl::Seconds(10));
  EXPECT_EQ(rest.unwritten_sessions, 0);
  EXPECT_FALSE(rest.store_hangs);
  EXPECT_EQ(Written(), 1);
}

TEST_F(FlushTest, ADiskThatRefusesIsCountedNotWaitedFor) {
  for (int i = 0; i < 3; ++i) Create(i);
  files.DieAt(0);  // every call fails from now on
  for (int i = 0; i < 3; ++i) Commit(i);
  const DeviceThread::Rest rest = device->Stop();
  EXPECT_EQ(rest.unwritten_sessions, 3);
  EXPECT_FALSE(rest.store_hangs);
}

}  // namespace
}  // namespace sluice
