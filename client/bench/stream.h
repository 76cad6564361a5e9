// One Generate call of a benchmark, without a thread of its own.
#ifndef SLUICE_CLIENT_BENCH_STREAM_H_
#define SLUICE_CLIENT_BENCH_STREAM_H_

#include <atomic>
#include <cstdint>
#include <functional>

#include "absl/time/time.h"
#include "client/bench/latency.h"
#include "grpcpp/client_context.h"
#include "grpcpp/support/client_callback.h"
#include "grpcpp/support/status.h"
#include "sluice/v1/generate.pb.h"
#include "sluice/v1/inference.grpc.pb.h"

namespace sluice {

// Time of the benchmark: monotonic, since an arbitrary origin.
absl::Duration BenchNow();

struct StreamResult {
  grpc::Status status;
  bool finished = false;  // the daemon's Finished came, and not for an error
  int64_t prompt_tokens = 0;
  int64_t new_tokens = 0;
  int64_t messages = 0;        // that held tokens
  absl::Duration first_token;  // from the scheduled start to the first message with tokens
  absl::Duration whole;        // from the scheduled start to the end of the stream
  // Between messages with tokens; and the same gap divided among the tokens of the message that
  // ended it. Tokens that came together with the first one are in neither: no gap led to them.
  LatencySamples between_messages;
  LatencySamples inter_token;
};

// Lives from Start until on_done was called, which is the last thing that happens to it and may
// destroy it.
class BenchStream : public grpc::ClientReadReactor<v1::GenerateResponse> {
 public:
  using OnDoneCallback = std::function<void(BenchStream*)>;  // on one of gRPC's threads

  // `scheduled`: when the request was due, which an overloaded client may start late.
  // `token_counter` counts the tokens of all streams as they come.
  BenchStream(v1::GenerateRequest request, absl::Duration scheduled, absl::Duration timeout,
              std::atomic<int64_t>* token_counter, OnDoneCallback on_done);

  void Start(v1::InferenceService::Stub* stub);
  void Cancel() { context_.TryCancel(); }                 // any thread, until on_done was called
  const StreamResult& result() const { return result_; }  // complete when on_done is called

  void OnReadDone(bool ok) override;
  void OnDone(const grpc::Status& status) override;

 private:
  void CountTokens(int64_t tokens);

  const v1::GenerateRequest request_;
  const absl::Duration scheduled_;
  std::atomic<int64_t>* const token_counter_;
  const OnDoneCallback on_done_;
  grpc::ClientContext context_;
  v1::GenerateResponse response_;
  absl::Duration last_message_;
  StreamResult result_;
};

}  // namespace sluice

#endif  // SLUICE_CLIENT_BENCH_STREAM_H_
