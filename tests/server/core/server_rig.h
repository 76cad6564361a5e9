// The server's core over the fake engine: what a test of more than one stream needs.
#ifndef SLUICE_TESTS_SERVER_CORE_SERVER_RIG_H_
#define SLUICE_TESTS_SERVER_CORE_SERVER_RIG_H_

#include <memory>
#include <thread>
#include <utility>

#include "gtest/gtest.h"
#include "server/core/admission.h"
#include "server/core/device_thread.h"
#include "server/core/emitter.h"
#include "tests/fakes/fake_engine.h"
#include "tests/server/core/fake_transport.h"

namespace sluice {

// Token ids only, never ended by the model.
inline Request MakeTestRequest(int32_t max_new_tokens, uint64_t seed = 1) {
  Request request;
  request.prompt = {5, 6, 7};
  request.seed = seed;
  request.stop.max_new_tokens = max_new_tokens;
  request.stop.ignore_eos = true;
  request.output.text = false;
  request.output.token_ids = true;
  return request;
}

inline constexpr int32_t kEndless = 1 << 30;

// For what no event tells. Ordering never depends on how long it takes.
template <typename Condition>
void SpinUntil(Condition condition) {
  while (!condition()) std::this_thread::yield();
}

struct ServerRig {
  explicit ServerRig(const StreamLimits& limits = {}, const Clock* emitter_clock = nullptr,
                     int64_t fail_after_steps = -1)
      : emitter(emitter_clock != nullptr ? emitter_clock : &fake.clock, limits) {
    if (fail_after_steps >= 0) fake.backend.FailAfterSteps(fail_after_steps);
    device = std::make_unique<DeviceThread>(fake.engine.get(), &fake.clock, &emitter);
  }
  ~ServerRig() {
    device->Stop();
    emitter.Stop();
  }

  // A stream for `transport`, admitted but not yet submitted.
  std::shared_ptr<Stream> Open(const std::shared_ptr<FakeTransport>& transport,
                               int32_t sequences = 1) {
    auto permit = admission.Admit(3);
    SLUICE_CHECK(permit.ok());
    auto stream = Stream::Create(transport, &emitter, std::move(*permit), sequences);
    transport->set_stream(stream);
    return stream;
  }
  void Submit(const std::shared_ptr<FakeTransport>& transport, Request request) {
    const int32_t sequences = request.n;
    device->Submit(std::move(request), Open(transport, sequences));
  }

  // Waits for what follows the last Finish, then: no row, permit, ring or stream is left.
  void ExpectNothingLeft() {
    SpinUntil([&] { return emitter.live_streams() == 0 && device->live_requests() == 0; });
    EXPECT_EQ(admission.permits(), 0);
    EXPECT_EQ(admission.queued_requests(), 0);
    EXPECT_EQ(admission.queued_tokens(), 0);
    EXPECT_EQ(emitter.stats().ring_bytes.load(), 0);
    device->Stop();
    EXPECT_EQ(fake.engine->live_requests(), 0);
    EXPECT_EQ(fake.engine->stats().slots_used.value(), 0);
    EXPECT_EQ(fake.engine->stats().waiting.value(), 0);
    EXPECT_EQ(fake.engine->stats().running.value(), 0);
    EXPECT_EQ(fake.engine->stats().paused.value(), 0);
  }

  FakeEngine fake;
  Admission admission{AdmissionLimits{}, &fake.clock};
  Emitter emitter;
  std::unique_ptr<DeviceThread> device;
};

}  // namespace sluice

#endif  // SLUICE_TESTS_SERVER_CORE_SERVER_RIG_H_
