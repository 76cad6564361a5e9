// An Engine over the fake backend and clock, with the bundled model's tokenizer: everything but
// arithmetic.
#ifndef SLUICE_TESTS_FAKES_FAKE_ENGINE_H_
#define SLUICE_TESTS_FAKES_FAKE_ENGINE_H_

#include <memory>
#include <utility>
#include <vector>

#include "engine/checkpoint/families/gla.h"
#include "engine/engine.h"
#include "tests/fakes/fake_backend.h"
#include "tests/fakes/fake_clock.h"
#include "tests/fakes/fault_backend.h"
#include "tests/fakes/test_paths.h"

namespace sluice {

inline constexpr int32_t kFakeEos = 2;

// Aborts when the bundled tokenizer cannot be read.
inline const Tokenizer& BundledTokenizer() {
  static const Tokenizer* tokenizer = [] {
    TokenizerOptions options;
    options.vocab_size = 4096;
    absl::StatusOr<std::unique_ptr<const Tokenizer>> loaded =
        Tokenizer::Load(SourcePath("deploy/models/classics-12m"), options);
    SLUICE_CHECK(loaded.ok());
    return loaded->release();
  }();
  return *tokenizer;
}

// The fake engine's model: a state of four floats.
inline ModelSpec FakeSpec() {
  GlaShape shape;
  shape.vocab = 4096;
  shape.layers = 1;
  shape.hidden = 8;
  shape.heads = shape.kv_heads = 1;
  shape.dk = shape.dv = 2;
  shape.intermediate = 8;
  return shape.Spec();
}

struct FakeEngine {
  explicit FakeEngine(const FakeBackend::Options& backend_options = {}, int32_t slots = 8,
                      int32_t max_batch_tokens = 16, EngineOptions options = {},
                      const FakeClock& started = {})
      : clock(started), backend(backend_options) {
    const ModelSpec spec = FakeSpec();
    SLUICE_CHECK(device.AllocateStates(spec, slots, slots, max_batch_tokens).ok());
    model = std::move(*Model::Create(&device, spec, EmptyWeights(spec), max_batch_tokens));
    options.slots = slots;
    options.max_batch_tokens = max_batch_tokens;
    options.eos_token_ids = {kFakeEos};
    engine = std::make_unique<Engine>(&device, model.get(), &BundledTokenizer(), &clock, options);
  }

  // Steps until nothing is left to do.
  void RunDry() {
    while (engine->Step()) clock.Advance(absl::Milliseconds(1));
  }

  FakeClock clock;
  FakeBackend backend;
  FaultBackend device{&backend};  // what the engine sees; sound until told otherwise
  std::unique_ptr<Model> model;
  std::unique_ptr<Engine> engine;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_FAKE_ENGINE_H_
