#include "server/core/stream.h"

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "gtest/gtest.h"
#include "server/core/emitter.h"
#include "tests/fakes/fake_clock.h"
#include "tests/server/core/fake_transport.h"

namespace sluice {
namespace {

DeltaEvent Delta(std::string text, int32_t index = 0) {
  DeltaEvent delta;
  delta.index = index;
  delta.text = std::move(text);
  return delta;
}

// The test is the device thread.
class StreamTest : public ::testing::Test {
 protected:
  struct Opened {
    std::shared_ptr<FakeTransport> transport;
    std::shared_ptr<Stream> stream;

    FakeTransport* operator->() const { return transport.get(); }
  };

  Opened Open(FakeTransport::Mode mode = FakeTransport::Mode::kManual, int32_t sequences = 1) {
    Opened opened;
    opened.transport = std::make_shared<FakeTransport>(mode);
    opened.stream =
        Stream::Create(opened.transport, &emitter_, std::move(*admission_.Admit(7)), sequences);
    opened.transport->set_stream(opened.stream);
    return opened;
  }

  void Push(const Opened& opened, TokenEvent event) {
    opened.stream->Push(std::move(event));
    emitter_.Ring();
  }
  void Close(const Opened& opened, absl::Status status) {
    opened.stream->Close(std::move(status));
    emitter_.Ring();
  }

  // The emitter has looked at everything it was told of before.
  void LetEmitterCatchUp() {
    Opened other = Open(FakeTransport::Mode::kInline);
    Close(other, absl::OkStatus());
    EXPECT_TRUE(other->WaitForFinish().ok());
  }

  // Moves the clock and has the emitter look at it.
  void Advance(absl::Duration by) {
    clock_.Advance(by);
    LetEmitterCatchUp();
    LetEmitterCatchUp();  // the first one was there before the emitter looked at the clock
  }

  void ExpectNothingLeft(Opened opened) {
    LetEmitterCatchUp();  // the emitter drops a stream after its Finish
    LetEmitterCatchUp();
    const std::weak_ptr<Stream> stream = opened.stream;
    const std::weak_ptr<FakeTransport> transport = opened.transport;
    opened = {};
    EXPECT_TRUE(stream.expired());
    EXPECT_TRUE(transport.expired());
    EXPECT_EQ(admission_.permits(), 0);
    EXPECT_EQ(admission_.queued_requests(), 0);
    EXPECT_EQ(emitter_.stats().ring_bytes.load(), 0);
  }

  static constexpr absl::Duration Stall() { return absl::Hours(10); }  // real time never comes near

  FakeClock clock_;
  Admission admission_{AdmissionLimits{}, &clock_};
  Emitter emitter_{&clock_, {.ring_events = 16, .ring_bytes = 4096, .write_stall = Stall()}};
};

TEST_F(StreamTest, EventsComeOutInOrderAndFinishIsLast) {
  Opened a = Open(FakeTransport::Mode::kInline);
  Push(a, StartedEvent{3, 42});
  Push(a, Delta("once "));
  Push(a, Delta("upon"));
  Push(a, FinishedEvent{});
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
  EXPECT_EQ(a->text(), "once upon");
  EXPECT_EQ(std::get<StartedEvent>(a->writes().front().front()).seed, 42u);
  EXPECT_TRUE(std::holds_alternative<FinishedEvent>(a->writes().back().back()));
  EXPECT_EQ(a->try_cancels(), 0);
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, WhatWaitsBehindAWriteIsOneWrite) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, Delta("b"));
  Push(a, Delta("c"));
  Push(a, FinishedEvent{});
  LetEmitterCatchUp();
  EXPECT_EQ(a->writes().size(), 1u);
  a->Complete(true);
  a->WaitForWrites(2);
  const std::vector<TokenEvent> second = a->writes()[1];
  ASSERT_EQ(second.size(), 2u);
  EXPECT_EQ(std::get<DeltaEvent>(second[0]).text, "bc");
  Close(a, absl::OkStatus());
  a->Complete(true);
  EXPECT_TRUE(a->WaitForFinish().ok());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, FinishFollowsTheWriteInFlight) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, Delta("b"));
  Close(a, absl::DeadlineExceededError("late"));
  LetEmitterCatchUp();
  EXPECT_FALSE(a->finished());
  a->Complete(true);
  a->WaitForWrites(2);  // what was generated is still written
  EXPECT_FALSE(a->finished());
  EXPECT_EQ(admission_.permits(), 1);
  a->Complete(true);
  EXPECT_TRUE(absl::IsDeadlineExceeded(a->WaitForFinish()));
  EXPECT_EQ(a->text(), "ab");
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, ACancelBeforeTheFirstEventWritesNothing) {
  Opened a = Open();
  a->Leave();
  a->Leave();
  Push(a, StartedEvent{});
  LetEmitterCatchUp();
  EXPECT_FALSE(a->finished());
  Close(a, absl::CancelledError());
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  EXPECT_TRUE(a->writes().empty());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, ACancelInMidWriteFreesAllButTheObject) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, Delta("b"));
  EXPECT_GT(emitter_.stats().ring_bytes.load(), 0);
  a->Leave();
  EXPECT_EQ(emitter_.stats().ring_bytes.load(), 0);
  Close(a, absl::CancelledError());
  EXPECT_EQ(admission_.permits(), 0);
  LetEmitterCatchUp();
  EXPECT_FALSE(a->finished());
  a->Complete(false);
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  EXPECT_EQ(a->writes().size(), 1u);
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, ACancelAfterTheLastTokenIsStillOneFinish) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, FinishedEvent{});
  Close(a, absl::OkStatus());
  EXPECT_EQ(admission_.permits(), 1);
  a->Leave();
  EXPECT_EQ(admission_.permits(), 0);
  a->Complete(true);
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  EXPECT_EQ(a->writes().size(), 1u);
  a->Leave();
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AnEndedCallWritesNothingMore) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, Delta("b"));
  a.stream->End(absl::UnauthenticatedError("revoked"));
  a.stream->End(absl::UnavailableError("again"));
  Push(a, Delta("c"));
  EXPECT_EQ(a.stream->Room(), 16) << "nothing waits for a reader any more";
  LetEmitterCatchUp();
  EXPECT_FALSE(a->finished()) << "a write is in flight, and the request is not closed";
  // The request may have come to its own end meanwhile: the call has not.
  Close(a, absl::OkStatus());
  a->Complete(true);
  EXPECT_TRUE(absl::IsUnauthenticated(a->WaitForFinish()));
  EXPECT_EQ(a->text(), "a");
  EXPECT_EQ(a->try_cancels(), 0) << "the client is told why";
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, ACallEndedAfterItsLastTokenKeepsTheRest) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Push(a, Delta("b"));
  Close(a, absl::OkStatus());
  a.stream->End(absl::UnauthenticatedError("revoked"));
  EXPECT_EQ(admission_.permits(), 0);
  a->Complete(true);
  EXPECT_TRUE(absl::IsUnauthenticated(a->WaitForFinish()));
  EXPECT_EQ(a->text(), "a");
  a.stream->End(absl::UnauthenticatedError("too late"));
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AnEndedCallWhoseReaderStallsIsCancelled) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  a.stream->End(absl::UnauthenticatedError("revoked"));
  Close(a, absl::CancelledError("the engine's own"));
  Advance(Stall() + absl::Seconds(1));
  EXPECT_EQ(a->try_cancels(), 1);
  a->Complete(false);
  EXPECT_TRUE(absl::IsUnauthenticated(a->WaitForFinish()));
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AFailedWriteEndsTheStream) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  a->Complete(false);
  Push(a, Delta("b"));
  EXPECT_EQ(a.stream->Room(), 16);
  Close(a, absl::OkStatus());
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  EXPECT_EQ(a->writes().size(), 1u);
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AStalledWriteIsCancelledOnce) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Advance(Stall() - absl::Seconds(1));
  EXPECT_EQ(a->try_cancels(), 0);
  Advance(Stall() / 8 + absl::Seconds(1));
  a->WaitForTryCancel();
  EXPECT_EQ(emitter_.stats().slow_readers.value(), 1u);
  Close(a, absl::CancelledError("slow"));
  EXPECT_EQ(admission_.permits(), 0);
  Advance(Stall() * 2);
  EXPECT_EQ(a->try_cancels(), 1);
  EXPECT_EQ(emitter_.stats().slow_readers.value(), 1u);
  EXPECT_FALSE(a->finished());
  a->Leave();
  a->Complete(false);
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AStallAfterTheLastTokenCountsToo) {
  Opened a = Open();
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  Close(a, absl::OkStatus());
  Advance(Stall() + Stall() / 8);
  a->WaitForTryCancel();
  EXPECT_EQ(admission_.permits(), 0);
  a->Complete(false);
  EXPECT_TRUE(absl::IsCancelled(a->WaitForFinish()));
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, AStreamThatWaitsForTheDeviceIsNotStalled) {
  Opened a = Open();
  Push(a, StartedEvent{});
  a->WaitForWrites(1);
  a->Complete(true);
  Advance(Stall() * 3);
  EXPECT_EQ(a->try_cancels(), 0);
  Push(a, Delta("a"));
  a->WaitForWrites(2);
  a->Complete(true);
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, RoomIsWhatTheRingHasLeft) {
  Opened a = Open();
  EXPECT_EQ(a.stream->Room(), 16);
  Push(a, Delta("a"));
  a->WaitForWrites(1);
  EXPECT_EQ(a.stream->Room(), 16);  // what is being written is out of the ring
  for (int i = 0; i < 16; ++i) a.stream->Push(Delta("b"));
  EXPECT_EQ(a.stream->Room(), 0);
  a.stream->Push(Delta("b"));  // a time limit's events come whether or not there is room
  EXPECT_EQ(a.stream->Room(), 0);
  a->Complete(true);
  a->WaitForWrites(2);
  EXPECT_EQ(a.stream->Room(), 16);
  a.stream->Push(Delta(std::string(5000, 'x')));
  EXPECT_EQ(a.stream->Room(), 0);  // bytes are bounded too
  a->Complete(true);
  a->WaitForWrites(3);
  a->Complete(true);
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, ARequestOfManySequencesHasRoomForItsSteps) {
  Opened a = Open(FakeTransport::Mode::kInline, 20);
  EXPECT_GE(a.stream->Room(), 2 * RoomForStep(20));
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, TheFirstOutputLeavesTheQueue) {
  Opened a = Open(FakeTransport::Mode::kInline);
  Push(a, StartedEvent{});
  EXPECT_EQ(admission_.queued_requests(), 1);
  EXPECT_EQ(admission_.queued_tokens(), 7);
  Push(a, Delta("a"));
  EXPECT_EQ(admission_.queued_requests(), 0);
  EXPECT_EQ(admission_.queued_tokens(), 0);
  EXPECT_EQ(admission_.permits(), 1);
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
  ExpectNothingLeft(std::move(a));
}

TEST_F(StreamTest, CancelAllReachesEveryStream) {
  std::vector<Opened> streams;
  for (int i = 0; i < 5; ++i) streams.push_back(Open());
  Push(streams[0], Delta("a"));
  streams[0]->WaitForWrites(1);
  emitter_.CancelAll();
  for (const Opened& opened : streams) {
    opened->WaitForTryCancel();
    opened->Complete(false);
    Close(opened, absl::UnavailableError("stop"));
    EXPECT_TRUE(absl::IsUnavailable(opened->WaitForFinish()));
  }
  EXPECT_EQ(emitter_.stats().slow_readers.value(), 0u);
  for (Opened& opened : streams) {
    EXPECT_EQ(opened->try_cancels(), 1);
    opened = {};
  }
  ExpectNothingLeft({});
}

TEST_F(StreamTest, TheEmitterWakesOnceForAStepOfManyStreams) {
  std::vector<Opened> streams;
  for (int i = 0; i < 50; ++i) streams.push_back(Open(FakeTransport::Mode::kInline));
  constexpr int kSteps = 20;
  for (int step = 0; step < kSteps; ++step) {
    for (const Opened& opened : streams) opened.stream->Push(Delta("a"));
    emitter_.Ring();
  }
  for (const Opened& opened : streams) opened.stream->Close(absl::OkStatus());
  emitter_.Ring();
  for (const Opened& opened : streams) EXPECT_TRUE(opened->WaitForFinish().ok());
  for (Opened& opened : streams) {
    EXPECT_EQ(opened->text(), std::string(kSteps, 'a'));
    opened = {};
  }
  EXPECT_LE(emitter_.stats().wake_ups.value(), kSteps + 2u);
  ExpectNothingLeft({});
}

TEST_F(StreamTest, WritesAreTimedUntilTheTransportHasTakenThem) {
  Opened a = Open(FakeTransport::Mode::kManual);
  Push(a, Delta("once "));
  a->WaitForWrites(1);
  EXPECT_TRUE(emitter_.stats().write_seconds.empty());
  clock_.Advance(absl::Seconds(3));
  EXPECT_TRUE(a->Complete(true));
  EXPECT_EQ(emitter_.stats().write_seconds.sum(), 3);
  Close(a, absl::OkStatus());
  EXPECT_TRUE(a->WaitForFinish().ok());
}

TEST_F(StreamTest, StopDoesWhatWasRungFor) {
  Opened a = Open(FakeTransport::Mode::kManual);
  Close(a, absl::UnavailableError("stop"));
  emitter_.Stop();
  EXPECT_TRUE(a->finished());
  EXPECT_EQ(emitter_.live_streams(), 0);
}

}  // namespace
}  // namespace sluice
