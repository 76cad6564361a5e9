// Whatever happens to a session, its next call gives the bits that it gives on an engine where
// nothing ever happens. On the real CPU backend: sessions move between slots, host memory and
// files, are forked, exported and imported, outlive engines; calls are cancelled, run out of time,
// have slow readers and find what they begin with in the prefix cache.
//
// A failure prints its seed: SLUICE_IDENTITY_SEED=N runs that one alone.

#include <unistd.h>

#include <chrono>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <memory>
#include <optional>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "engine/files.h"
#include "engine/state/session_store.h"
#include "engine/state/state_blob.h"
#include "gtest/gtest.h"
#include "tests/fakes/real_engine.h"
#include "tests/fakes/spec_models.h"

namespace sluice {
namespace {

// Tokens of a session, for budgets if states grow.
constexpr int64_t kUsualTokens = 600;

struct Case {
  std::string dir;
  double seconds;  // of seeds
};

std::vector<Case> Cases() {
  std::vector<Case> cases = {{"tests/goldens/variants/short_conv", 5.0}};
  for (const char* dir : kSpecModels) cases.push_back({dir, 2.0});
  return cases;
}

// Counts how often each event has happened.
struct Tally {
  uint64_t commits = 0, cancelled = 0, slots = 0, host = 0, disk = 0, reused = 0, moves = 0;
  uint64_t restarts = 0, spills = 0, out_of_time = 0;
};

// The same calls, one at a time, on an engine with room for everything and no prefix cache. Its
// sessions never change: a call that commits leaves a new one.
class Undisturbed {
 public:
  explicit Undisturbed(const std::string& dir)
      : dir_(dir), real_(dir, {.threads = 1, .slots = 4, .max_batch_tokens = 1024}) {}

  RealEngine& real() { return real_; }
  const std::string& model() const { return dir_; }

  std::string Fork(const std::string& from) {
    const std::string id = absl::StrCat("u", next_++);
    const auto done = [](absl::StatusOr<SessionInfo> info) { SLUICE_CHECK(info.ok()); };
    if (from.empty()) {
      real_.engine().sessions().Create("", {.id = id}, done);
    } else {
      real_.engine().sessions().Fork("", from, "", {.id = id}, done);
    }
    return id;
  }
  std::shared_ptr<RecordingSink> Run(Request request) {
    auto sink = std::make_shared<RecordingSink>();
    real_.engine().Submit(std::move(request), sink);
    while (real_.engine().Step()) {
    }
    SLUICE_CHECK(sink->status->ok());
    return sink;
  }

 private:
  const std::string dir_;
  RealEngine real_;
  int64_t next_ = 0;
};

class Disturbed {
 public:
  Disturbed(Undisturbed* undisturbed, uint64_t seed, Tally* tally)
      : undisturbed_(undisturbed), rng_(seed), tally_(tally) {
    // In memory where there is such a place: nothing here tests that a disk is slow.
    const std::string parent =
        std::filesystem::is_directory("/dev/shm") ? "/dev/shm/" : testing::TempDir();
    std::string name = parent + "sluice-identity-XXXXXX";
    SLUICE_CHECK(mkdtemp(name.data()) != nullptr);
    dir_ = name;
    common_ = RandomTokens(&rng_, undisturbed->real().vocab(), 500);
    Boot();
  }
  ~Disturbed() { std::filesystem::remove_all(dir_); }

  void Run(int events) {
    for (int i = 0; i < events && !testing::Test::HasFailure(); ++i) Event();
    Settle();
    Shut();
  }

 private:
  // A call and what it is to be compared with.
  struct Sink : RecordingSink {
    Sink(Disturbed* owner, Request r) : disturbed(owner), request(std::move(r)) {}
    void Push(TokenEvent event) override {
      if (std::holds_alternative<StartedEvent>(event)) disturbed->Started(this);
      const auto* end = std::get_if<FinishedEvent>(&event);
      const bool committed = end != nullptr && end->session != nullptr;
      RecordingSink::Push(std::move(event));
      if (committed) disturbed->Compare(this);
    }
    void Close(absl::Status s) override {
      const bool compare = s.ok() && !request.commit;
      RecordingSink::Close(std::move(s));
      if (compare) disturbed->Compare(this);
    }

    Disturbed* const disturbed;
    Request request;
    RequestId id = 0;
    std::string base;     // of the undisturbed engine's sessions; "": none
    bool orphan = false;  // its session is gone
  };

  size_t Below(size_t n) { return rng_() % n; }
  Engine& engine() { return real_->engine(); }
  Sessions& sessions() { return real_->engine().sessions(); }

  // ---- The engine and its store ----

  void Boot() {
    RealEngine& other = undisturbed_->real();
    const StateTable table = MakeStateTable(other.spec());
    spec_ = {other.fingerprint(), table};
    auto store = SessionStore::Open(PosixFiles(), dir_, spec_);
    ASSERT_TRUE(store.ok()) << store.status();
    store_ = *std::move(store);
    EngineShape setup;
    setup.threads = 1 + static_cast<int32_t>(Below(2));
    setup.slots = 2 + static_cast<int32_t>(Below(3));
    setup.max_batch_tokens = setup.slots + 64 * (1 + static_cast<int32_t>(Below(4)));
    setup.options.has_store = true;
    setup.options.session_index = store_->TakeIndex();
    const auto host_states = static_cast<int64_t>(4 + Below(8));
    setup.options.session_limits.host_state_bytes = host_states * table.BytesAt(kUsualTokens);
    setup.options.session_limits.disk_state_bytes = 200 * table.BytesAt(kUsualTokens);
    setup.options.session_limits.default_ttl = absl::InfiniteDuration();
    setup.options.prefix_cache_bytes =
        static_cast<int64_t>(Below(6)) * table.BytesAt(kUsualTokens) + 20000;
    // Room for one sequence of the longest, or a little more.
    setup.attention = {8192, PagesFor(8192) + static_cast<int64_t>(Below(40))};
    setup.options.random = [this] { return ids_(); };
    real_ = std::make_unique<RealEngine>(undisturbed_->model(), setup);
  }

  void RunJobs(bool all) {
    do {
      for (auto& job : sessions().TakeJobs()) jobs_.push_back(std::move(job));
      if (jobs_.empty()) return;
      std::unique_ptr<StoreJob> job = std::move(jobs_.front());
      jobs_.erase(jobs_.begin());
      RunStoreJob(store_.get(), job.get());
      sessions().JobDone(std::move(job));
    } while (all || Below(3) != 0);
  }

  void Settle() {
    for (const auto& sink : calls_) sink->room = 1 << 20;
    for (int i = 0; i < 100000; ++i) {
      const bool worked = engine().Step();
      real_->clock().Advance(absl::Milliseconds(1));
      RunJobs(true);
      if (!worked && engine().live_requests() == 0 && !sessions().jobs_outstanding()) break;
    }
    const EngineStats& stats = engine().stats();
    EXPECT_EQ(engine().live_requests(), 0)
        << "it never settles: waiting " << stats.waiting.value() << ", running "
        << stats.running.value() << ", paused " << stats.paused.value() << ", in slots "
        << stats.slots_used.value() << " of " << stats.slots_total.value();
    for (const auto& sink : calls_) engine().Cancel(sink->id, absl::CancelledError());
    while (engine().live_requests() > 0 && engine().Step()) {
    }
    calls_.clear();
  }

  void Shut() {
    const EngineStats& stats = engine().stats();
    tally_->commits += stats.commits.value();
    tally_->slots += stats.device_restores.value();
    tally_->host += stats.host_restores.value();
    tally_->disk += stats.disk_restores.value();
    tally_->reused += stats.prefix_hits.value();
    tally_->spills += stats.spills.value();
    real_.reset();
    store_.reset();
  }

  void Restart() {
    Settle();
    Shut();
    Boot();
    ++tally_->restarts;
  }

  // ---- What is asked ----

  std::string AnySession() {
    if (sessions_.empty()) return "";
    auto it = sessions_.begin();
    std::advance(it, Below(sessions_.size()));
    return it->first;
  }

  // The session `id` was made of the undisturbed `base`.
  void Made(const std::string& id, const std::string& base, absl::StatusOr<SessionInfo> info) {
    if (absl::IsResourceExhausted(info.status())) return;
    ASSERT_TRUE(info.ok()) << info.status();
    sessions_[id] = base;
  }

  void Create() {
    const std::string id = absl::StrCat("s", next_++);
    const std::string base = undisturbed_->Fork("");
    sessions().Create("", {.id = id}, [=, this](absl::StatusOr<SessionInfo> info) {
      Made(id, base, std::move(info));
    });
  }

  void Fork() {
    const std::string from = AnySession();
    if (from.empty()) return;
    const std::string id = absl::StrCat("s", next_++);
    // The fork is of what is committed now; the answer comes once it is on disk.
    sessions().Get("", from, [=, this](absl::StatusOr<SessionInfo> parent) {
      if (!parent.ok()) return;
      const int64_t position = parent->position;
      const std::string base = BaseAt(from, position);
      if (base.empty()) return;
      sessions().Fork("", from, "", {.id = id}, [=, this](absl::StatusOr<SessionInfo> info) {
        if (info.ok()) {
          EXPECT_EQ(info->position, position);
        }
        Made(id, base, std::move(info));
      });
    });
  }

  // Export, then import of the same bytes under another name.
  void Move() {
    const std::string from = AnySession();
    if (from.empty()) return;
    const std::string id = absl::StrCat("s", next_++);
    const StateKeys keys = {{std::string(kKeyIdBytes, 'k'), std::string(32, 's')}};
    sessions().Export("", from, "", [=, this](absl::StatusOr<ExportedState> state) {
      if (!state.ok()) {
        EXPECT_TRUE(absl::IsResourceExhausted(state.status())) << state.status();
        return;
      }
      const std::string base = BaseAt(from, state->info.position);
      if (base.empty()) return;
      BlobWriter writer(keys, "", spec_, state->info, state->data);
      BlobReader reader(&keys, "", &spec_);
      for (std::string piece = writer.Next(1000); !piece.empty(); piece = writer.Next(1000)) {
        ASSERT_TRUE(reader.Add(piece).ok());
      }
      absl::StatusOr<BlobState> blob = reader.Finish();
      ASSERT_TRUE(blob.ok()) << blob.status();
      ++tally_->moves;
      sessions().Import(
          "", {.id = id}, blob->info, std::move(blob->data),
          [=, this](absl::StatusOr<SessionInfo> info) { Made(id, base, std::move(info)); });
    });
  }

  // The undisturbed session that `id` was when it was at this position: an export that waits for
  // the disk tells what was committed when it was asked for. "": not known any more.
  std::string BaseAt(const std::string& id, int64_t position) {
    const auto it = sessions_.find(id);
    if (it == sessions_.end()) return "";
    const std::string base = it->second;
    int64_t now = -1;
    undisturbed_->real().engine().sessions().Get(
        "", base, [&](absl::StatusOr<SessionInfo> info) { now = info->position; });
    EXPECT_GE(now, position);
    return now == position ? base : "";
  }

  void Submit() {
    Request request;
    const int64_t vocab = undisturbed_->real().vocab();
    request.prompt = RandomTokens(&rng_, vocab, static_cast<int64_t>(1 + Below(90)));
    if (Below(2) == 0) {
      request.prompt.insert(request.prompt.begin(), common_.begin(),
                            common_.begin() + static_cast<int64_t>(Below(500)));
    }
    request.seed = rng_();
    request.stop.max_new_tokens = static_cast<int32_t>(Below(12));
    request.stop.ignore_eos = Below(2) == 0;
    request.output.text = false;
    request.output.token_ids = true;
    request.output.logprobs = 1;
    request.session_id = Below(4) == 0 ? "" : AnySession();
    request.commit = !request.session_id.empty() && Below(4) != 0;
    request.durable = request.commit && Below(3) == 0;
    request.on_conflict = static_cast<OnConflict>(Below(3));
    if (!request.commit && Below(2) == 0) request.n = 2;
    if (!request.commit && Below(4) == 0) request.output.prompt_logprobs = 0;
    if (Below(4) == 0) request.sampling.repetition_penalty = 1.2f;
    if (Below(8) == 0) request.stop.time_limit = absl::Milliseconds(Below(40));
    request.bypass_prefix_cache = Below(8) == 0;
    auto sink = std::make_shared<Sink>(this, request);
    calls_.push_back(sink);
    sink->id = engine().Submit(std::move(request), sink);
  }

  void Started(Sink* sink) {
    const std::string& id = sink->request.session_id;
    if (id.empty()) return;
    const auto it = sessions_.find(id);
    sink->orphan = it == sessions_.end();
    if (!sink->orphan) sink->base = it->second;
  }

  void Compare(Sink* sink) {
    if (sink->orphan) return;
    Request request = sink->request;
    // When its time is over is nobody's promise: the other must give what it had got to.
    bool out_of_time = false;
    for (const auto& [index, end] : sink->finished) {
      out_of_time |= end.reason == FinishReason::kTimeLimit;
    }
    if (out_of_time) {
      if (request.n > 1) return;
      request.stop.max_new_tokens = static_cast<int32_t>(sink->token_ids[0].size());
      ++tally_->out_of_time;
    }
    request.stop.time_limit = absl::InfiniteDuration();
    request.on_conflict = OnConflict::kFail;
    request.durable = false;
    if (!sink->base.empty()) {
      request.session_id = request.commit ? undisturbed_->Fork(sink->base) : sink->base;
    }
    const std::string id = request.session_id;
    const auto expected = undisturbed_->Run(request);
    EXPECT_EQ(BitsOf(*sink, request.n), BitsOf(*expected, request.n))
        << "session " << sink->request.session_id << " at " << sink->base;
    if (!request.commit) return;
    EXPECT_EQ(sink->finished[0].session->position, expected->finished[0].session->position);
    const auto it = sessions_.find(sink->request.session_id);
    if (it == sessions_.end()) return;
    EXPECT_EQ(it->second, sink->base) << "somebody else has written";
    it->second = id;
  }

  void Delete() {
    const std::string id = AnySession();
    if (id.empty()) return;
    sessions_.erase(id);
    sessions().Delete("", id, "", [](absl::Status status) { EXPECT_TRUE(status.ok()) << status; });
  }

  void CheckClosed() {
    for (size_t i = 0; i < calls_.size();) {
      const auto& sink = calls_[i];
      if (!sink->status.has_value()) {
        ++i;
        continue;
      }
      const absl::Status& status = *sink->status;
      EXPECT_TRUE(status.ok() || absl::IsCancelled(status) || absl::IsAborted(status) ||
                  absl::IsNotFound(status) || absl::IsResourceExhausted(status) ||
                  absl::IsDeadlineExceeded(status))
          << status;
      if (absl::IsCancelled(status)) ++tally_->cancelled;
      calls_.erase(calls_.begin() + static_cast<int64_t>(i));
    }
  }

  void Event() {
    switch (Below(20)) {
      case 0:
        if (sessions_.size() < 12) Create();
        break;
      case 1:
        if (sessions_.size() < 12) Fork();
        break;
      case 2:
        if (sessions_.size() < 12) Move();
        break;
      case 3:
      case 4:
      case 5:
        if (calls_.size() < 8) Submit();
        break;
      case 6:
        if (!calls_.empty() && Below(2) == 0) {
          engine().Cancel(calls_[Below(calls_.size())]->id, absl::CancelledError());
        }
        break;
      case 7:
        if (!calls_.empty()) {
          Sink& sink = *calls_[Below(calls_.size())];
          sink.room = sink.room == 0 ? 1 << 20 : 0;
        }
        break;
      case 8:
        if (Below(20) == 0) Delete();
        break;
      case 9:
        if (Below(12) == 0) Restart();
        break;
      case 10:
      case 11:
        RunJobs(false);
        break;
      default:
        engine().Step();
        real_->clock().Advance(absl::Milliseconds(Below(8) == 0 ? 1200 : Below(4)));
    }
    CheckClosed();
  }

  Undisturbed* const undisturbed_;
  std::mt19937_64 rng_;
  std::mt19937_64 ids_{rng_()};
  Tally* const tally_;
  std::string dir_;
  StateSpec spec_;
  std::vector<int32_t> common_;  // what prompts begin with
  std::unique_ptr<SessionStore> store_;
  std::unique_ptr<RealEngine> real_;
  std::vector<std::unique_ptr<StoreJob>> jobs_;
  std::vector<std::shared_ptr<Sink>> calls_;
  std::map<std::string, std::string> sessions_;  // name -> the undisturbed session it equals
  int64_t next_ = 0;
};

class SessionIdentityTest : public testing::TestWithParam<Case> {};

TEST_P(SessionIdentityTest, ASessionGivesTheBitsOfOneThatNothingHappensTo) {
  const char* one = std::getenv("SLUICE_IDENTITY_SEED");
  const auto begin = std::chrono::steady_clock::now();
  const auto elapsed = [&] {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  };
  Tally tally;
  const uint64_t first = one != nullptr ? std::strtoull(one, nullptr, 10) : 1;
  uint64_t seed = first;
  do {
    SCOPED_TRACE(absl::StrCat("SLUICE_IDENTITY_SEED=", seed));
    Undisturbed undisturbed(GetParam().dir);
    Disturbed disturbed(&undisturbed, seed, &tally);
    disturbed.Run(600);
    ++seed;
  } while (one == nullptr && elapsed() < GetParam().seconds && !HasFailure());
  std::printf(
      "%llu seeds: %llu commits, %llu cancelled, %llu out of time; restored from slots %llu, host "
      "%llu, disk %llu; %llu prompt tokens reused, %llu moves, %llu restarts, %llu spills\n",
      static_cast<unsigned long long>(seed - first), static_cast<unsigned long long>(tally.commits),
      static_cast<unsigned long long>(tally.cancelled),
      static_cast<unsigned long long>(tally.out_of_time),
      static_cast<unsigned long long>(tally.slots), static_cast<unsigned long long>(tally.host),
      static_cast<unsigned long long>(tally.disk), static_cast<unsigned long long>(tally.reused),
      static_cast<unsigned long long>(tally.moves), static_cast<unsigned long long>(tally.restarts),
      static_cast<unsigned long long>(tally.spills));
  if (one != nullptr || seed - first < 5) return;
  for (uint64_t count : {tally.commits, tally.cancelled, tally.out_of_time, tally.slots, tally.host,
                         tally.disk, tally.reused, tally.moves, tally.restarts, tally.spills}) {
    EXPECT_GT(count, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, SessionIdentityTest, testing::ValuesIn(Cases()),
                         [](const testing::TestParamInfo<Case>& test) {
                           return SpecModelName(test.param.dir);
                         });

}  // namespace
}  // namespace sluice
