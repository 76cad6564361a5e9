// A request's tokens and log-probabilities are bit-identical alone, in any batch, however its
// prompt is cut, with any number of threads, run after run. On the real backend, with the engine's
// own scheduling.

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "gtest/gtest.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"
#include "tests/fakes/sanitized.h"
#include "tests/fakes/test_paths.h"

namespace sluice {
namespace {

struct EngineShape {
  int32_t threads = 2;
  int32_t slots = 16;
  int32_t max_batch_tokens = 512;
};

class RealEngine {
 public:
  RealEngine(const std::string& dir, const EngineShape& setup)
      : backend_(MakeCpuBackend({.threads = setup.threads})) {
    auto checkpoint = Checkpoint::Open(SourcePath(dir));
    SLUICE_CHECK(checkpoint.ok());
    std::string fingerprint;
    auto weights = (*checkpoint)->Load(backend_.get(), {}, &fingerprint);
    SLUICE_CHECK(weights.ok());
    const ModelShape& shape = (*checkpoint)->config().shape;
    vocab_ = shape.vocab;
    SLUICE_CHECK(
        backend_->AllocateStates(shape, setup.slots, setup.slots, setup.max_batch_tokens).ok());
    model_ = std::move(
        *Model::Create(backend_.get(), shape, std::move(*weights), setup.max_batch_tokens));
    EngineOptions options;
    options.slots = setup.slots;
    options.max_batch_tokens = setup.max_batch_tokens;
    options.eos_token_ids = (*checkpoint)->config().eos_token_ids;
    engine_ = std::make_unique<Engine>(backend_.get(), model_.get(), &BundledTokenizer(), &clock_,
                                       options);
  }

  Engine& engine() { return *engine_; }
  FakeClock& clock() { return clock_; }
  int64_t vocab() const { return vocab_; }

 private:
  FakeClock clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  int64_t vocab_ = 0;
};

std::vector<int32_t> RandomTokens(std::mt19937_64* rng, int64_t vocab, int64_t length) {
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(3 + (*rng)() % (vocab - 3));
  return tokens;
}

Request RandomRequest(std::mt19937_64* rng, int64_t vocab) {
  Request request;
  request.prompt = RandomTokens(rng, vocab, 1 + (*rng)() % 300);
  request.seed = (*rng)();
  request.n = 1 + static_cast<int32_t>((*rng)() % 3);
  request.stop.max_new_tokens = 1 + static_cast<int32_t>((*rng)() % 24);
  request.stop.ignore_eos = true;
  request.output.text = false;
  request.output.token_ids = true;
  request.output.logprobs = 3;
  if ((*rng)() % 2 == 0) request.output.prompt_logprobs = 2;
  if ((*rng)() % 3 == 0) request.sampling.temperature = 0.0f;
  if ((*rng)() % 3 == 0) request.sampling.top_p = 0.9f;
  if ((*rng)() % 3 == 0) request.sampling.top_k = 40;
  if ((*rng)() % 3 == 0) request.sampling.repetition_penalty = 1.3f;
  if ((*rng)() % 3 == 0) request.sampling.frequency_penalty = 0.5f;
  return request;
}

// Everything a reader can see of a request, to the bit.
void Append(const TokenLogprob& logprob, std::vector<uint32_t>* bits) {
  const auto add = [&](int32_t token, float value) {
    uint32_t raw;
    std::memcpy(&raw, &value, sizeof raw);
    bits->push_back(static_cast<uint32_t>(token));
    bits->push_back(raw);
  };
  add(logprob.token, logprob.logprob);
  bits->push_back(static_cast<uint32_t>(logprob.rank));
  for (const TokenAlternative& a : logprob.alternatives) add(a.token, a.logprob);
}

std::vector<uint32_t> BitsOf(RecordingSink& sink, int32_t n) {
  std::vector<uint32_t> bits;
  for (const TokenLogprob& logprob : sink.prompt_logprobs) Append(logprob, &bits);
  for (int32_t i = 0; i < n; ++i) {
    bits.insert(bits.end(), sink.token_ids[i].begin(), sink.token_ids[i].end());
    for (const TokenLogprob& logprob : sink.logprobs[i]) Append(logprob, &bits);
  }
  return bits;
}

std::vector<uint32_t> RunAlone(RealEngine* real, const Request& request) {
  auto sink = std::make_shared<RecordingSink>();
  real->engine().Submit(request, sink);
  while (real->engine().Step()) {
  }
  SLUICE_CHECK(sink->status->ok());
  return BitsOf(*sink, request.n);
}

constexpr int kRunsShare = kSanitized ? 20 : 1;

struct Case {
  const char* dir;
  int probes;
  int runs;
};

class BitIdentityTest : public testing::TestWithParam<Case> {};

TEST_P(BitIdentityTest, AloneAndInAnyCompany) {
  const Case& param = GetParam();
  std::mt19937_64 rng(20);
  std::vector<Request> probes;
  std::vector<std::vector<uint32_t>> alone;
  {
    RealEngine real(param.dir, {.threads = 1, .slots = 4, .max_batch_tokens = 1024});
    for (int i = 0; i < param.probes; ++i) {
      probes.push_back(RandomRequest(&rng, real.vocab()));
      alone.push_back(RunAlone(&real, probes.back()));
      ASSERT_FALSE(alone.back().empty());
    }
  }
  uint64_t spills = 0;
  for (int run = 0; run < param.runs / kRunsShare; ++run) {
    SCOPED_TRACE(run);
    EngineShape setup;
    setup.threads = 1 + static_cast<int32_t>(rng() % 3);
    setup.slots = 3 + static_cast<int32_t>(rng() % 14);
    setup.max_batch_tokens = setup.slots + 64 * (1 + static_cast<int32_t>(rng() % 5));
    RealEngine real(param.dir, setup);
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    std::vector<RequestId> company;
    for (size_t i = 0; i < probes.size(); ++i) {
      for (size_t others = rng() % 3; others > 0; --others) {
        company.push_back(real.engine().Submit(RandomRequest(&rng, real.vocab()),
                                               std::make_shared<RecordingSink>()));
      }
      sinks.push_back(std::make_shared<RecordingSink>());
      real.engine().Submit(probes[i], sinks.back());
      // A reader that stops for a while loses its slot when others want it: its state goes to the
      // host and back.
      RecordingSink& reader = *sinks[rng() % sinks.size()];
      reader.room = reader.room == 0 ? 1 << 20 : 0;
      for (size_t steps = rng() % 6; steps > 0; --steps) {
        real.clock().Advance(absl::Milliseconds(300));
        real.engine().Step();
      }
      if (!company.empty() && rng() % 4 == 0) {
        real.engine().Cancel(company[rng() % company.size()], absl::CancelledError());
      }
    }
    for (const auto& sink : sinks) sink->room = 1 << 20;
    while (real.engine().Step()) {
    }
    spills += real.engine().stats().spills.value();
    for (size_t i = 0; i < probes.size(); ++i) {
      EXPECT_EQ(BitsOf(*sinks[i], probes[i].n), alone[i]) << "probe " << i;
    }
  }
  if (kRunsShare == 1) {
    EXPECT_GT(spills, 0u);
  }
}

INSTANTIATE_TEST_SUITE_P(Models, BitIdentityTest,
                         testing::Values(Case{"tests/goldens/variants/base", 6, 100},
                                         Case{"tests/goldens/variants/gqa", 4, 100},
                                         Case{"tests/goldens/variants/short_conv", 4, 100},
                                         Case{"tests/goldens/variants/odd_dims", 4, 100},
                                         Case{"tests/goldens/variants/strong_gates", 4, 100},
                                         Case{"deploy/models/classics-12m", 3, 40}),
                         [](const testing::TestParamInfo<Case>& test) {
                           const std::string dir = test.param.dir;
                           std::string name = dir.substr(dir.rfind('/') + 1);
                           for (char& c : name) c = c == '-' ? '_' : c;
                           return name;
                         });

}  // namespace
}  // namespace sluice
