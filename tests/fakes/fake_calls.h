// Calls of the fake engine, and what they must give.
#ifndef SLUICE_TESTS_FAKES_FAKE_CALLS_H_
#define SLUICE_TESTS_FAKES_FAKE_CALLS_H_

#include <algorithm>
#include <memory>
#include <random>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"

namespace sluice {

inline constexpr int64_t kVocab = 4096;  // of the fake engine

inline Request MakeRequest(std::vector<int32_t> prompt, int32_t max_new_tokens, uint64_t seed = 1) {
  Request request;
  request.prompt = std::move(prompt);
  request.seed = seed;
  request.stop.max_new_tokens = max_new_tokens;
  request.output.token_ids = true;
  return request;
}

inline std::vector<int32_t> RandomPrompt(std::mt19937_64* rng, int64_t length) {
  std::vector<int32_t> prompt(length);
  for (int32_t& token : prompt) token = static_cast<int32_t>(3 + (*rng)() % (kVocab - 3));
  return prompt;
}

// The tokens that a request must generate, from the definition of the fake model alone.
inline std::vector<int32_t> Expected(const Request& request, uint32_t sequence) {
  std::vector<int32_t> history = request.prompt;
  std::vector<int32_t> out;
  for (int32_t i = 0; i < request.stop.max_new_tokens; ++i) {
    int32_t token = FakeBackend::NextToken(history, kVocab, request.seed, sequence, history.size());
    const auto is_stop = [&](int32_t id) {
      const auto& ids = request.stop.token_ids;
      return (!request.stop.ignore_eos && id == kFakeEos) ||
             std::find(ids.begin(), ids.end(), id) != ids.end();
    };
    if (i < request.stop.min_new_tokens) {
      while (is_stop(token)) token = (token + 1) % kVocab;
    }
    history.push_back(token);
    out.push_back(token);
    if (is_stop(token)) break;
  }
  return out;
}

struct Running {
  Request request;
  std::shared_ptr<RecordingSink> sink;
  RequestId id = 0;
};

inline Running Submit(FakeEngine* fake, Request request) {
  Running running{request, std::make_shared<RecordingSink>(), 0};
  running.id = fake->engine->Submit(std::move(request), running.sink);
  return running;
}

inline void ExpectAsDefined(const Running& running) {
  ASSERT_TRUE(running.sink->status.has_value());
  EXPECT_TRUE(running.sink->status->ok()) << *running.sink->status;
  ASSERT_EQ(running.sink->finished.size(), static_cast<size_t>(running.request.n));
  for (int32_t i = 0; i < running.request.n; ++i) {
    EXPECT_EQ(running.sink->token_ids[i], Expected(running.request, i)) << "sequence " << i;
    EXPECT_EQ(running.sink->finished[i].usage.new_tokens,
              static_cast<int64_t>(running.sink->token_ids[i].size()));
  }
}

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAKE_CALLS_H_
