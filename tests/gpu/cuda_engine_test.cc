// Through the engine, with its own scheduling: a request's tokens and log-probabilities are
// bit-identical alone and in every batch size, beside decode rows and prompts, however its prompt
// is cut, whatever of it came from the prefix cache, and after its state went to the host and back.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "tests/fakes/recording_sink.h"
#include "tests/gpu/engine_on_gpu.h"

namespace sluice {
namespace {

Request RandomRequest(std::mt19937_64* random, int64_t vocab, int64_t prompt) {
  Request request;
  request.prompt = RandomTokens(prompt, vocab, (*random)());
  request.seed = (*random)();
  request.stop.max_new_tokens = 4 + static_cast<int32_t>((*random)() % 16);
  request.stop.ignore_eos = true;
  request.output.text = false;
  request.output.token_ids = true;
  request.output.logprobs = 3;
  if ((*random)() % 2 == 0) request.output.prompt_logprobs = 2;
  if ((*random)() % 3 == 0) request.sampling.temperature = 0.0f;
  if ((*random)() % 3 == 0) request.sampling.top_p = 0.9f;
  if ((*random)() % 3 == 0) request.sampling.top_k = 40;
  if ((*random)() % 3 == 0) request.sampling.repetition_penalty = 1.3f;
  return request;
}

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

// Everything a reader can see, to the bit.
std::vector<uint32_t> BitsOf(RecordingSink& sink, int32_t n) {
  std::vector<uint32_t> bits;
  for (const TokenLogprob& logprob : sink.prompt_logprobs) Append(logprob, &bits);
  for (int32_t i = 0; i < n; ++i) {
    bits.insert(bits.end(), sink.token_ids[i].begin(), sink.token_ids[i].end());
    for (const TokenLogprob& logprob : sink.logprobs[i]) Append(logprob, &bits);
  }
  return bits;
}

std::string DirOf(const std::string& name) {
  if (name == "classics_12m") return BundledModel();
  const std::string goldens = PathFrom("SLUICE_GOLDENS", "tests/goldens");
  return goldens + (name.find('/') == std::string::npos ? "/variants/" : "/") + name;
}

std::string NameOf(const testing::TestParamInfo<const char*>& tested) {
  std::string name = tested.param;
  std::replace(name.begin(), name.end(), '/', '_');
  return name;
}

class CudaEngineTest : public testing::TestWithParam<const char*> {};

TEST_P(CudaEngineTest, AloneAndInAnyCompany) {
  const std::string dir = DirOf(GetParam());
  constexpr int32_t kSlots = 72;
  constexpr int64_t kPrompts[] = {1, 16, 64, 65, 70, 512, 1300};
  std::mt19937_64 random(20);
  std::vector<Request> probes;
  std::vector<std::vector<uint32_t>> alone;
  {
    EngineOnGpu gpu(dir, 4, 4096);
    for (const int64_t prompt : kPrompts) {
      probes.push_back(RandomRequest(&random, gpu.vocab, prompt));
      probes.back().n = prompt == 16 || prompt == 70 ? 3 : 1;
      if (prompt == 64 || prompt == 65) probes.back().output.prompt_logprobs = 2;
      auto sink = std::make_shared<RecordingSink>();
      gpu.engine->Submit(probes.back(), sink);
      while (gpu.engine->Step()) {
      }
      ASSERT_TRUE(sink->status->ok()) << *sink->status;
      alone.push_back(BitsOf(*sink, probes.back().n));
      ASSERT_FALSE(alone.back().empty());
    }
  }
  uint64_t spills = 0;
  for (const int32_t company : {0, 1, 2, 4, 8, 15, 17, 31, 33, 60, 100}) {
    for (const int32_t cut : {512, 1024, 2048}) {
      // Readers that stop lose their slots if sequences are many and slots few.
      const int32_t slots = company == 15 || company == 17 ? 8 : company > 60 ? 24 : kSlots;
      EngineOnGpu gpu(dir, slots, kSlots + cut);
      std::vector<std::shared_ptr<RecordingSink>> sinks;
      int32_t others = 0;
      const auto add_others = [&](int32_t until) {
        for (; others < until; ++others) {
          const int64_t prompt =
              1 + static_cast<int64_t>(random() % (random() % 4 == 0 ? 900 : 60));
          gpu.engine->Submit(RandomRequest(&random, gpu.vocab, prompt),
                             std::make_shared<RecordingSink>());
        }
      };
      for (size_t i = 0; i < probes.size(); ++i) {
        add_others(company * static_cast<int32_t>(i + 1) / static_cast<int32_t>(probes.size()));
        sinks.push_back(std::make_shared<RecordingSink>());
        gpu.engine->Submit(probes[i], sinks.back());
        RecordingSink& reader = *sinks[random() % sinks.size()];
        reader.room = reader.room == 0 ? 1 << 20 : 0;
        for (size_t steps = 1 + random() % 7; steps > 0; --steps) {
          gpu.clock.Advance(absl::Milliseconds(400));
          gpu.engine->Step();
        }
      }
      for (const auto& sink : sinks) sink->room = 1 << 20;
      while (gpu.engine->Step()) {
      }
      spills += gpu.engine->stats().spills.value();
      for (size_t i = 0; i < probes.size(); ++i) {
        EXPECT_EQ(BitsOf(*sinks[i], probes[i].n), alone[i])
            << "prompt of " << kPrompts[i] << " in company of " << company << ", cut " << cut;
      }
    }
  }
  EXPECT_GT(spills, 0u);
}

TEST_P(CudaEngineTest, WithAndWithoutThePrefixCache) {
  const std::string dir = DirOf(GetParam());
  std::mt19937_64 random(21);
  std::vector<Request> probes;
  std::vector<std::vector<uint32_t>> alone;
  {
    EngineOnGpu gpu(dir, 4, 4096);
    const std::vector<int32_t> common = RandomTokens(6000, gpu.vocab, 7);
    for (int i = 0; i < 8; ++i) {
      // A hit leaves as little of the last prompt as a short prompt has.
      const bool little = i == 7;
      const auto own = little ? 16 : 1 + static_cast<int64_t>(random() % 700);
      const auto shared = little ? 1024 : static_cast<int64_t>(random() % 6000);
      probes.push_back(RandomRequest(&random, gpu.vocab, own));
      Request& probe = probes.back();
      if (i > 1) probe.output.prompt_logprobs = -1;
      probe.n = 1 + static_cast<int32_t>(random() % 2);
      probe.prompt.insert(probe.prompt.begin(), common.begin(), common.begin() + shared);
      auto sink = std::make_shared<RecordingSink>();
      gpu.engine->Submit(probe, sink);
      while (gpu.engine->Step()) {
      }
      ASSERT_TRUE(sink->status->ok()) << *sink->status;
      alone.push_back(BitsOf(*sink, probe.n));
    }
  }
  uint64_t reused = 0, waits = 0, from_slots = 0, from_host = 0;
  for (int run = 0; run < 12; ++run) {
    // Few slots: what is cached loses its own and comes from the host.
    EngineOnGpu gpu(dir, run % 2 == 0 ? 3 : 40, 40 + 512 * (1 + run % 4), 64 << 20);
    std::vector<std::pair<size_t, std::shared_ptr<RecordingSink>>> answers;
    for (int i = 0; i < 32; ++i) {
      const size_t probe = random() % probes.size();
      answers.emplace_back(probe, std::make_shared<RecordingSink>());
      Request request = probes[probe];
      request.bypass_prefix_cache = random() % 8 == 0;
      gpu.engine->Submit(std::move(request), answers.back().second);
      for (size_t steps = random() % 3 == 0 ? random() % 20 : 0; steps > 0; --steps) {
        gpu.engine->Step();
      }
    }
    while (gpu.engine->Step()) {
    }
    for (const auto& [probe, sink] : answers) {
      EXPECT_EQ(BitsOf(*sink, probes[probe].n), alone[probe]) << "probe " << probe;
    }
    const EngineStats& stats = gpu.engine->stats();
    reused += stats.prefix_hits.value();
    waits += stats.prefix_waits.value();
    from_slots += stats.device_restores.value();
    from_host += stats.host_restores.value();
  }
  for (const uint64_t count : {reused, waits, from_slots, from_host}) EXPECT_GT(count, 0u);
}

// Four calls decode and the state of one turns into NaNs: it ends, the others do not notice, and
// its slot is as good as any for the next.
TEST_P(CudaEngineTest, AStateThatIsNotFiniteEndsItsCallAlone) {
  constexpr int32_t kCalls = 4, kPoisoned = 1;
  constexpr size_t kTokens = 40;
  struct Round {
    std::vector<std::shared_ptr<RecordingSink>> sinks;
    std::vector<size_t> before;  // tokens of each call when the state is written
  };
  const auto run = [](EngineOnGpu* gpu, bool poison) {
    std::mt19937_64 random(22);
    Round round;
    for (int32_t i = 0; i < kCalls; ++i) {
      Request request = RandomRequest(&random, gpu->vocab, 3 + 30 * i);
      request.stop.max_new_tokens = kTokens;
      round.sinks.push_back(std::make_shared<RecordingSink>());
      gpu->engine->Submit(std::move(request), round.sinks.back());
    }
    for (int i = 0; i < 10; ++i) gpu->engine->Step();
    for (const auto& sink : round.sinks) round.before.push_back(sink->token_ids[0].size());
    if (poison) {
      const auto elements =
          static_cast<size_t>(MakeStateTable(gpu->model->spec()).bytes()) / sizeof(float);
      const std::vector<float> state(elements, std::numeric_limits<float>::quiet_NaN());
      // There are as many slots as calls, so it is one of theirs.
      EXPECT_TRUE(gpu->backend->Await(gpu->backend->WriteState(kPoisoned, state.data(), 0)).ok());
    }
    while (gpu->engine->Step()) {
    }
    return round;
  };
  EngineOnGpu sound(DirOf(GetParam()), kCalls, 1024), gpu(DirOf(GetParam()), kCalls, 1024);
  if (gpu.backend->pages().total > 0)
    GTEST_SKIP() << "a slot with pages is written with as many tokens as its call has seen";
  const Round expected = run(&sound, false), beside = run(&gpu, true);
  int faults = 0;
  for (int32_t i = 0; i < kCalls; ++i) {
    RecordingSink& sink = *beside.sinks[i];
    const std::vector<int32_t>& tokens = expected.sinks[i]->token_ids[0];
    ASSERT_EQ(tokens.size(), kTokens);
    ASSERT_EQ(sink.finished.count(0), 1u);
    if (sink.finished[0].status.ok()) {
      EXPECT_EQ(BitsOf(sink, 1), BitsOf(*expected.sinks[i], 1)) << "call " << i;
      continue;
    }
    ++faults;
    EXPECT_EQ(sink.finished[0].status,
              absl::InternalError("numeric fault: the model's logits are not finite"));
    const std::vector<int32_t>& own = sink.token_ids[0];
    EXPECT_GT(beside.before[i], 0u);
    EXPECT_GE(own.size(), beside.before[i]);
    // Two more tokens may come, of steps that were on their way when the state was written.
    EXPECT_LE(own.size(), beside.before[i] + 2);
    EXPECT_TRUE(std::equal(own.begin(), own.end(), tokens.begin()));
  }
  EXPECT_EQ(faults, 1);
  const Round after = run(&gpu, false);
  for (int32_t i = 0; i < kCalls; ++i) {
    EXPECT_EQ(BitsOf(*after.sinks[i], 1), BitsOf(*expected.sinks[i], 1)) << "call " << i;
  }
}

INSTANTIATE_TEST_SUITE_P(Models, CudaEngineTest,
                         testing::Values("classics_12m", "gqa", "short_conv", "strong_gates"),
                         NameOf);
// One of each core and state shape: grouped states, tails of a convolution and a decay of each
// head, a normaliser, running sums, turned pairs, the delta rule by head and by key channel, pages
// and rings of keys and values, and heads of any width.
INSTANTIATE_TEST_SUITE_P(Families, CudaEngineTest,
                         testing::Values("retnet/gqa_relu", "mamba2/groups", "linear_attn/elu",
                                         "lightnet/conv_tied", "transnormer/base", "retnet/odd",
                                         "gated_deltanet/gva", "kda/base", "delta_net/odd",
                                         "gated_deltanet/hybrid", "transformer/window",
                                         "qwen3/base"),
                         NameOf);

}  // namespace
}  // namespace sluice
