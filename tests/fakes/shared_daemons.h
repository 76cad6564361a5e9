// Several engines with stores of their own on one fake file system, as daemons that share a session
// directory. Nothing happens unless told: steps, jobs of the store, time.
#ifndef SLUICE_TESTS_FAKES_SHARED_DAEMONS_H_
#define SLUICE_TESTS_FAKES_SHARED_DAEMONS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/store_job.h"
#include "gtest/gtest.h"
#include "tests/fakes/fake_calls.h"
#include "tests/fakes/fake_files.h"

namespace sluice {

struct SharedOptions {
  int32_t slots = 8;
  int64_t host_states = 100;
  int64_t disk_states = 1000;
  int64_t max_sessions = 1000;
  int64_t max_sessions_per_tenant = 1000;
  int64_t lock_slots = SessionLocks::kSlots;
  absl::Duration ttl = absl::InfiniteDuration();
  bool shared = true;
  uint64_t seed = 1;
};

class SharedDaemon {
 public:
  SharedDaemon(FakeFiles* files, const SharedOptions& options, absl::Duration now,
               absl::Duration wall_jump) {
    FakeClock clock;
    clock.Advance(now);
    clock.JumpWall(wall_jump);
    auto opened = SessionStore::Open(
        files, "/d", {"model", MakeStateTable(FakeSpec())},
        {.shared = options.shared,
         .about = "a process",
         .lock_slots = options.lock_slots,
         .on_quarantine = [this](const std::string& name) { quarantined_.push_back(name); },
         .now_us = absl::ToUnixMicros(clock.WallNow())});
    EXPECT_TRUE(opened.ok()) << opened.status();
    store_ = *std::move(opened);
    EngineOptions engine;
    engine.fingerprint = "model";
    engine.has_store = true;
    engine.shared_store = options.shared;
    engine.last_uses_since = absl::FromUnixMicros(store_->first_start_us());
    engine.on_wrong_clock = [this](const std::string& why) { wrong_clocks_.push_back(why); };
    engine.session_index = store_->TakeIndex();
    engine.session_limits.host_state_bytes = options.host_states * 16;
    engine.session_limits.disk_state_bytes = options.disk_states * 16;
    engine.session_limits.max_sessions = options.max_sessions;
    engine.session_limits.max_sessions_per_tenant = options.max_sessions_per_tenant;
    engine.session_limits.default_ttl = options.ttl;
    fake_ = std::make_unique<FakeEngine>(
        FakeBackend::Options{.grid = 4, .steps_in_flight = 2, .seed = options.seed}, options.slots,
        options.slots + 8, engine, clock);
  }
  // The process dies: what is out comes to nothing, and its locks go.
  ~SharedDaemon() {
    for (const RequestId id : ids_) fake_->engine->Cancel(id, absl::CancelledError());
    for (int i = 0; i < 1000 && (i < 2 || fake_->engine->live_requests() > 0); ++i) {
      fake_->engine->Step();
      for (auto& job : sessions().TakeJobs()) jobs_.push_back(std::move(job));
      for (auto& job : std::exchange(jobs_, {})) {
        job->status = absl::UnavailableError("the process is gone");
        job->owned = false;
        sessions().JobDone(std::move(job));
      }
    }
  }

  Engine& engine() { return *fake_->engine; }
  Sessions& sessions() { return fake_->engine->sessions(); }
  SessionStore& store() { return *store_; }
  FakeClock& clock() { return fake_->clock; }
  FakeEngine& fake() { return *fake_; }
  // Lines for the log.
  const std::vector<std::string>& wrong_clocks() const { return wrong_clocks_; }
  const std::vector<std::string>& quarantined() const { return quarantined_; }

  RequestId Submit(Request request, std::shared_ptr<TokenSink> sink) {
    ids_.push_back(engine().Submit(std::move(request), std::move(sink)));
    return ids_.back();
  }
  // Does one job of the store; false: there is none.
  bool RunOneJob() {
    for (auto& job : sessions().TakeJobs()) jobs_.push_back(std::move(job));
    if (jobs_.empty()) return false;
    std::unique_ptr<StoreJob> job = std::move(jobs_.front());
    jobs_.erase(jobs_.begin());
    RunStoreJob(store_.get(), job.get());
    sessions().JobDone(std::move(job));
    return true;
  }
  void RunJobs() {
    while (RunOneJob()) {
    }
  }
  // Does the first of the jobs that are out, or a part of it, and tells nobody.
  void RunUnheard(FakeFiles* files, int64_t dies_at) {
    if (jobs_.empty()) return;
    files->DieAt(dies_at);
    RunStoreJob(store_.get(), jobs_.front().get());
    files->RestartOne();
  }

 private:
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<FakeEngine> fake_;
  std::vector<std::unique_ptr<StoreJob>> jobs_;
  std::vector<RequestId> ids_;
  std::vector<std::string> wrong_clocks_;
  std::vector<std::string> quarantined_;
};

// Daemons and their time.
class SharedDaemons {
 public:
  explicit SharedDaemons(size_t count, SharedOptions options = {}) : options_(options) {
    for (size_t i = 0; i < count; ++i) Start();
  }

  FakeFiles& files() { return files_; }
  SharedDaemon& operator[](size_t i) { return *daemons_[i]; }
  size_t size() const { return daemons_.size(); }
  absl::Duration now() const { return now_; }

  void Start() {
    ++options_.seed;
    daemons_.push_back(std::make_unique<SharedDaemon>(&files_, options_, now_, wall_jump_));
  }
  void Kill(size_t i) {
    daemons_[i].reset();
    ++options_.seed;
    daemons_[i] = std::make_unique<SharedDaemon>(&files_, options_, now_, wall_jump_);
  }
  void KillAll() { daemons_.clear(); }
  // The time of day alone, of the daemons that are there and that come.
  void JumpWall(absl::Duration by) {
    wall_jump_ += by;
    for (auto& daemon : daemons_) daemon->clock().JumpWall(by);
  }
  void Advance(absl::Duration by) {
    now_ += by;
    for (auto& daemon : daemons_) daemon->clock().Advance(by);
  }
  // Each does what it can, then a millisecond passes.
  void Turn() {
    for (auto& daemon : daemons_) {
      daemon->engine().Step();
      daemon->RunJobs();
    }
    Advance(absl::Milliseconds(1));
  }
  // Until `done`; how long it took.
  absl::Duration Until(const std::function<bool()>& done,
                       absl::Duration bound = absl::Seconds(20)) {
    const absl::Duration began = now_;
    while (!done() && now_ - began < bound) Turn();
    EXPECT_TRUE(done()) << "not within " << bound;
    return now_ - began;
  }

 private:
  SharedOptions options_;
  FakeFiles files_;
  absl::Duration now_;
  absl::Duration wall_jump_;
  std::vector<std::unique_ptr<SharedDaemon>> daemons_;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_SHARED_DAEMONS_H_
