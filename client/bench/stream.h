// One Generate call of a benchmark, without a thread of its own.
#ifndef SLUICE_CLIENT_BENCH_STREAM_H_
#define SLUICE_CLIENT_BENCH_STREAM_H_

#include <atomic>
#include <cstdint>
#include <functional>
#include <string>

#include "absl/time/time.h"
#include "client/bench/record.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/status.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/inference.grpc.pb.h"
#include "sluice/v1/session.grpc.pb.h"

namespace sluice {

// Time of the benchmark: monotonic, since an arbitrary origin.
absl::Duration BenchNow();

// When a request was sent and how long it may take.
struct StreamOptions {
  int64_t index = 0;
  absl::Duration origin;  // on BenchNow's clock: zero of the record's times
  absl::Duration due;     // on BenchNow's clock; an overloaded client may start it late
  absl::Duration timeout = absl::InfiniteDuration();
  std::string session_id = {};  // empty: no session
  int32_t turn = 0;             // of the session; the first one makes it, which is part of its time
};

// Lives from Start until on_done was called, which is the last thing that happens to it and may
// destroy it.
class BenchStream : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  using OnDoneCallback = std::function<void(BenchStream*)>;  // on one of gRPC's threads

  // `token_counter` counts the tokens of all streams as they come.
  BenchStream(v1::GenerateRequest request, const StreamOptions& options,
              std::atomic<int64_t>* token_counter, OnDoneCallback on_done);

  void Start(v1::InferenceService::Stub* stub, v1::SessionService::Stub* sessions);
  void Cancel();  // any thread, until on_done was called

  // Complete when on_done is called, but for outcome, code and error: those follow from the next
  // two.
  RequestRecord* record() { return &record_; }
  const grpc::Status& status() const { return status_; }
  const std::string& session_id() const { return request_.session_id(); }
  bool finished() const { return finished_; }  // the daemon's Finished came, and not for an error

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  absl::Duration Now() const { return BenchNow() - origin_; }
  void CreateSession(v1::InferenceService::Stub* stub, v1::SessionService::Stub* sessions);
  void Generate(v1::InferenceService::Stub* stub);
  void CountTokens(int32_t tokens);
  void OnFinished(const v1::Finished& finished);

  v1::GenerateRequest request_;
  const absl::Duration origin_;
  std::atomic<int64_t>* const token_counter_;
  const OnDoneCallback on_done_;
  grpc::ClientContext context_;
  grpc::ClientContext session_context_;
  v1::CreateSessionRequest session_request_;
  v1::Session session_;
  v1::GenerateResponse response_;
  grpc::Status status_;
  bool finished_ = false;
  RequestRecord record_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_STREAM_H_
