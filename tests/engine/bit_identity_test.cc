// A request's tokens and log-probabilities are bit-identical alone, in any batch, however its
// prompt is cut, whatever of it came from the prefix cache, with any number of threads, run after
// run. On the real backend, with the engine's own scheduling.

#include <algorithm>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/real_engine.h"
#include "tests/fakes/sanitized.h"
#include "tests/fakes/spec_models.h"

namespace sluice {
namespace {

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
    setup.attention = {1024, 20 + static_cast<int64_t>(rng() % 30)};  // too few for all at once
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

// Prompts that begin alike, for random lengths; the longest are worth several cuts.
std::vector<Request> AlikeRequests(std::mt19937_64* rng, int64_t vocab, int count) {
  const std::vector<int32_t> common = RandomTokens(rng, vocab, 700);
  std::vector<Request> requests;
  for (int i = 0; i < count; ++i) {
    Request request = RandomRequest(rng, vocab);
    if ((*rng)() % 4 != 0) request.output.prompt_logprobs = -1;
    const auto shared = static_cast<int64_t>((*rng)() % 700);
    request.prompt.resize(1 + request.prompt.size() % 100);
    request.prompt.insert(request.prompt.begin(), common.begin(), common.begin() + shared);
    requests.push_back(std::move(request));
  }
  return requests;
}

TEST_P(BitIdentityTest, WithAndWithoutThePrefixCache) {
  const Case& param = GetParam();
  std::mt19937_64 rng(21);
  std::vector<Request> probes;
  std::vector<std::vector<uint32_t>> alone;
  int64_t state_bytes = 0;
  {
    RealEngine real(param.dir, {.threads = 1, .slots = 4, .max_batch_tokens = 1024});
    state_bytes = MakeStateTable(real.spec()).BytesAt(700);
    probes = AlikeRequests(&rng, real.vocab(), param.probes);
    for (const Request& probe : probes) alone.push_back(RunAlone(&real, probe));
  }
  uint64_t reused = 0;
  uint64_t waits = 0;
  uint64_t evictions = 0;
  for (int run = 0; run < std::max(param.runs / 20 / kRunsShare, 2); ++run) {
    SCOPED_TRACE(run);
    EngineShape setup;
    setup.threads = 1 + static_cast<int32_t>(rng() % 2);
    setup.slots = 3 + static_cast<int32_t>(rng() % 6);
    setup.max_batch_tokens = setup.slots + 64 * (1 + static_cast<int32_t>(rng() % 5));
    setup.attention = {1024, 20 + static_cast<int64_t>(rng() % 30)};  // too few for all at once
    // Room for all there is, or for the tokens of some prompts and a few states.
    const bool plenty = run % 2 == 0;
    setup.options.prefix_cache_bytes = plenty ? 64 << 20 : 10000 + 2 * state_bytes;
    RealEngine real(param.dir, setup);
    std::vector<std::pair<size_t, std::shared_ptr<RecordingSink>>> answers;
    for (size_t i = 0; i < 4 * probes.size(); ++i) {
      const size_t probe = rng() % probes.size();
      Request request = probes[probe];
      request.bypass_prefix_cache = rng() % 6 == 0;
      answers.emplace_back(probe, std::make_shared<RecordingSink>());
      real.engine().Submit(std::move(request), answers.back().second);
      RecordingSink& reader = *answers[rng() % answers.size()].second;
      reader.room = reader.room == 0 ? 1 << 20 : 0;
      for (size_t steps = rng() % 4 == 0 ? rng() % 16 : 0; steps > 0; --steps) {
        real.clock().Advance(absl::Milliseconds(300));
        real.engine().Step();
      }
    }
    for (const auto& [probe, sink] : answers) sink->room = 1 << 20;
    while (real.engine().Step()) {
    }
    for (const auto& [probe, sink] : answers) {
      EXPECT_EQ(BitsOf(*sink, probes[probe].n), alone[probe]) << "probe " << probe;
    }
    reused += real.engine().stats().prefix_hits.value();
    waits += real.engine().stats().prefix_waits.value();
    evictions += real.engine().stats().prefix_evictions.value();
  }
  EXPECT_GT(reused, 0u);
  if (kRunsShare == 1 && param.runs >= 100) {
    EXPECT_GT(waits, 0u);
    EXPECT_GT(evictions, 0u);
  }
}

std::vector<Case> SpecCases() {
  std::vector<Case> cases;
  for (const char* dir : kSpecModels) cases.push_back({dir, 4, 24});
  return cases;
}

INSTANTIATE_TEST_SUITE_P(Specs, BitIdentityTest, testing::ValuesIn(SpecCases()),
                         [](const testing::TestParamInfo<Case>& test) {
                           return SpecModelName(test.param.dir);
                         });

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
