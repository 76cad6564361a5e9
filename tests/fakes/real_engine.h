// An Engine over the CPU backend and a checkpoint of the source tree, with a fake clock; and what a
// reader can see of its answers, to the bit.
#ifndef SLUICE_TESTS_FAKES_REAL_ENGINE_H_
#define SLUICE_TESTS_FAKES_REAL_ENGINE_H_

#include <cstring>
#include <memory>
#include <random>
#include <string>
#include <utility>
#include <vector>

#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "kernels/cpu/cpu_backend.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fake_engine.h"
#include "tests/fakes/recording_sink.h"
#include "tests/fakes/test_paths.h"

namespace sluice {

struct EngineShape {
  int32_t threads = 2;
  int32_t slots = 16;
  int32_t max_batch_tokens = 512;
  EngineOptions options = {};
  AttentionRoom attention = {16384, 512};  // of a model whose states grow
};

// Aborts when the checkpoint cannot be read.
class RealEngine {
 public:
  RealEngine(const std::string& dir, const EngineShape& setup)
      : backend_(MakeCpuBackend({.threads = setup.threads})) {
    auto checkpoint = Checkpoint::Open(SourcePath(dir));
    SLUICE_CHECK(checkpoint.ok());
    EngineOptions options = setup.options;
    auto weights = (*checkpoint)->Load(backend_.get(), {}, &options.fingerprint);
    fingerprint_ = options.fingerprint;
    SLUICE_CHECK(weights.ok());
    const ModelSpec& spec = (*checkpoint)->config().spec;
    vocab_ = spec.vocab;
    backend_->SetAttentionRoom(setup.attention);
    options.max_attention_tokens = setup.attention.max_tokens;
    SLUICE_CHECK(
        backend_->AllocateStates(spec, setup.slots, setup.slots, setup.max_batch_tokens).ok());
    model_ = std::move(
        *Model::Create(backend_.get(), spec, std::move(*weights), setup.max_batch_tokens));
    options.slots = setup.slots;
    options.max_batch_tokens = setup.max_batch_tokens;
    options.eos_token_ids = (*checkpoint)->config().eos_token_ids;
    engine_ = std::make_unique<Engine>(backend_.get(), model_.get(), &BundledTokenizer(), &clock_,
                                       options);
  }

  Engine& engine() { return *engine_; }
  Backend& backend() { return *backend_; }
  FakeClock& clock() { return clock_; }
  int64_t vocab() const { return vocab_; }
  const ModelSpec& spec() const { return model_->spec(); }
  const std::string& fingerprint() const { return fingerprint_; }

 private:
  FakeClock clock_;
  std::unique_ptr<Backend> backend_;
  std::unique_ptr<Model> model_;
  std::unique_ptr<Engine> engine_;
  int64_t vocab_ = 0;
  std::string fingerprint_;
};

inline std::vector<int32_t> RandomTokens(std::mt19937_64* rng, int64_t vocab, int64_t length) {
  std::vector<int32_t> tokens(length);
  for (int32_t& token : tokens) token = static_cast<int32_t>(3 + (*rng)() % (vocab - 3));
  return tokens;
}

inline void AppendBits(const TokenLogprob& logprob, std::vector<uint32_t>* bits) {
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

// Everything a reader can see of the n sequences of a request.
inline std::vector<uint32_t> BitsOf(RecordingSink& sink, int32_t n) {
  std::vector<uint32_t> bits;
  for (const TokenLogprob& logprob : sink.prompt_logprobs) AppendBits(logprob, &bits);
  for (int32_t i = 0; i < n; ++i) {
    bits.insert(bits.end(), sink.token_ids[i].begin(), sink.token_ids[i].end());
    for (const TokenLogprob& logprob : sink.logprobs[i]) AppendBits(logprob, &bits);
  }
  return bits;
}

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_REAL_ENGINE_H_
