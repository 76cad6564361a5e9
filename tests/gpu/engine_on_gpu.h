// The engine over a checkpoint on the GPU, as the daemon drives it.
#ifndef SLUICE_TESTS_GPU_ENGINE_ON_GPU_H_
#define SLUICE_TESTS_GPU_ENGINE_ON_GPU_H_

#include <cstdint>
#include <cstdlib>
#include <memory>
#include <string>
#include <utility>

#include "engine/checkpoint/checkpoint.h"
#include "engine/engine.h"
#include "engine/tokenizer/tokenizer.h"
#include "kernels/check.h"
#include "tests/fakes/fake_clock.h"
#include "tests/gpu/gpu_testing.h"

namespace sluice {

inline std::string PathFrom(const char* variable, const char* otherwise) {
  const char* value = std::getenv(variable);
  return value == nullptr ? otherwise : value;
}

// The model with a tokenizer that is in the repository.
inline std::string BundledModel() { return PathFrom("SLUICE_MODEL", "deploy/models/classics-12m"); }

struct EngineOnGpu {
  EngineOnGpu(const std::string& dir, int32_t slots, int32_t max_batch_tokens,
              int64_t prefix_cache_bytes = 0)
      : backend(CudaOrDie()) {
    auto checkpoint = Checkpoint::Open(dir);
    SLUICE_CHECK(checkpoint.ok());
    const ModelConfig& config = (*checkpoint)->config();
    vocab = config.spec.vocab;
    TokenizerOptions tokenizer_options;
    tokenizer_options.vocab_size = 4096;  // whatever this model's: only ids are looked at
    auto loaded = Tokenizer::Load(BundledModel(), tokenizer_options);
    SLUICE_CHECK(loaded.ok());
    tokenizer = *std::move(loaded);
    std::string fingerprint;
    auto weights = (*checkpoint)->Load(backend.get(), {}, &fingerprint);
    SLUICE_CHECK(weights.ok());
    auto made = Model::Create(backend.get(), config.spec, *std::move(weights), max_batch_tokens);
    SLUICE_CHECK(made.ok());
    model = *std::move(made);
    constexpr int64_t kMostTokens = 8192;
    const bool grows = backend->PageBytes(config.spec) > 0;
    backend->SetAttentionRoom({kMostTokens, (slots + 1) * PagesFor(kMostTokens)});
    SLUICE_CHECK(backend->AllocateStates(config.spec, slots, slots, max_batch_tokens).ok());
    SLUICE_CHECK(model->Prepare().ok());
    EngineOptions options;
    options.slots = slots;
    options.max_batch_tokens = max_batch_tokens;
    if (grows) options.max_attention_tokens = kMostTokens;
    options.prefix_cache_bytes = prefix_cache_bytes;
    options.eos_token_ids = config.eos_token_ids;
    engine = std::make_unique<Engine>(backend.get(), model.get(), tokenizer.get(), &clock, options);
  }

  FakeClock clock;
  std::unique_ptr<Backend> backend;
  std::unique_ptr<const Tokenizer> tokenizer;
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
  int64_t vocab = 0;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_GPU_ENGINE_ON_GPU_H_
