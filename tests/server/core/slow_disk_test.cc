// A disk that does not answer, under a daemon that goes on.

#include <atomic>
#include <condition_variable>
#include <cstdio>
#include <memory>
#include <mutex>
#include <string>
#include <utility>
#include <vector>

#include "engine/state/session_store.h"
#include "gtest/gtest.h"
#include "server/core/device_thread.h"
#include "server/core/store_thread.h"
#include "tests/fakes/fake_files.h"
#include "tests/server/core/server_rig.h"

namespace sluice {
namespace {

using Mode = FakeTransport::Mode;

// Holds whoever passes while it is shut.
class Gate {
 public:
  void Shut() {
    std::lock_guard<std::mutex> lock(mutex_);
    shut_ = true;
  }
  void Open() {
    std::lock_guard<std::mutex> lock(mutex_);
    shut_ = false;
    changed_.notify_all();
  }
  void Pass() {
    std::unique_lock<std::mutex> lock(mutex_);
    held_ = shut_;
    changed_.notify_all();
    changed_.wait(lock, [this] { return !shut_; });
    held_ = false;
  }
  void WaitUntilHeld() {
    std::unique_lock<std::mutex> lock(mutex_);
    changed_.wait(lock, [this] { return held_; });
  }
  bool held() {
    std::lock_guard<std::mutex> lock(mutex_);
    return held_;
  }

 private:
  std::mutex mutex_;
  std::condition_variable changed_;
  bool shut_ = false;
  bool held_ = false;
};

class SlowDiskTest : public testing::Test {
 protected:
  SlowDiskTest() {
    files_.set_before_call([this] { gate_.Pass(); });
    auto store = SessionStore::Open(&files_, "/d", {"model", MakeStateTable(FakeSpec())});
    SLUICE_CHECK(store.ok());
    store_ = *std::move(store);
    EngineOptions options;
    options.fingerprint = "model";
    options.has_store = true;
    fake_ = std::make_unique<FakeEngine>(FakeBackend::Options{}, 8, 16, options);
    emitter_ = std::make_unique<Emitter>(&fake_->clock, StreamLimits{});
    admission_ = std::make_unique<Admission>(AdmissionLimits{}, &fake_->clock);
    store_thread_ =
        std::make_unique<StoreThread>([this](StoreJob* job) { RunStoreJob(store_.get(), job); });
    device_ = std::make_unique<DeviceThread>(fake_->engine.get(), &fake_->clock, emitter_.get(),
                                             store_thread_.get());
  }
  ~SlowDiskTest() override {
    gate_.Open();
    device_->Stop();
    emitter_->Stop();
  }

  void Create(const std::string& id) {
    std::atomic<bool> made{false};
    SLUICE_CHECK(device_->Post([&](Sessions& sessions) {
      sessions.Create("", {.id = id}, [&](absl::StatusOr<SessionInfo> info) {
        SLUICE_CHECK(info.ok());
        made = true;
      });
    }));
    SpinUntil([&] { return made.load(); });
  }
  std::shared_ptr<FakeTransport> Submit(Request request) {
    auto transport = std::make_shared<FakeTransport>(Mode::kInline);
    auto permit = admission_->Admit(3);
    SLUICE_CHECK(permit.ok());
    auto stream = Stream::Create(transport, emitter_.get(), std::move(*permit), 1);
    transport->set_stream(stream);
    device_->Submit(std::move(request), std::move(stream));
    return transport;
  }
  uint64_t steps() const { return fake_->engine->stats().steps.value(); }

  Gate gate_;
  FakeFiles files_;  // of the store thread, once it runs
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<FakeEngine> fake_;
  std::unique_ptr<Emitter> emitter_;
  std::unique_ptr<Admission> admission_;
  std::unique_ptr<StoreThread> store_thread_;
  std::unique_ptr<DeviceThread> device_;
};

std::vector<int32_t> Expected(const Request& request) {
  std::vector<int32_t> history = request.prompt;
  for (int32_t i = 0; i < request.stop.max_new_tokens; ++i) {
    history.push_back(FakeBackend::NextToken(history, 4096, request.seed, 0, history.size()));
  }
  return {history.begin() + static_cast<int64_t>(request.prompt.size()), history.end()};
}

TEST_F(SlowDiskTest, StepsGoOnWhileTheDiskDoesNotAnswer) {
  Create("durable");
  Create("memory");
  gate_.Shut();
  Request durable = MakeTestRequest(5, 1);
  durable.session_id = "durable";
  durable.durable = true;
  const auto waiting = Submit(durable);
  gate_.WaitUntilHeld();

  const uint64_t before = steps();
  std::vector<std::pair<Request, std::shared_ptr<FakeTransport>>> others;
  for (uint64_t seed = 2; seed < 6; ++seed) {
    Request request = MakeTestRequest(500, seed);
    others.emplace_back(request, Submit(request));
  }
  Request memory = MakeTestRequest(500, 7);
  memory.session_id = "memory";
  others.emplace_back(memory, Submit(memory));
  for (const auto& [request, transport] : others) {
    EXPECT_TRUE(transport->WaitForFinish().ok());
    EXPECT_EQ(transport->token_ids(), Expected(request));
  }
  const uint64_t after = steps();
  EXPECT_TRUE(gate_.held()) << "one call of the disk, all the while";
  EXPECT_FALSE(waiting->finished());
  EXPECT_GE(after - before, 500u);
  std::printf("%llu steps while the disk did not answer\n",
              static_cast<unsigned long long>(after - before));

  gate_.Open();
  EXPECT_TRUE(waiting->WaitForFinish().ok());
  EXPECT_EQ(waiting->token_ids(), Expected(durable));
}

}  // namespace
}  // namespace sluice
