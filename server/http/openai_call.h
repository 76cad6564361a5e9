// One call of the door: its prompts as requests of the engine, their events as its answer.
//
// A StreamTransport for each prompt, beside the gRPC reactor: a Write becomes server-sent events
// whose bytes complete it when the socket has them, or is kept for the whole answer.
#ifndef SLUICE_SERVER_HTTP_OPENAI_CALL_H_
#define SLUICE_SERVER_HTTP_OPENAI_CALL_H_

#include <cstddef>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/status.h"
#include "engine/token_sink.h"
#include "server/auth_table.h"
#include "server/call_stats.h"
#include "server/core/mutex.h"
#include "server/core/stream.h"
#include "server/core/stream_transport.h"
#include "server/http/http_error.h"
#include "server/http/http_exchange.h"
#include "server/http/openai_request.h"
#include "server/http/openai_response.h"
#include "server/inference_parts.h"
#include "server/live_calls.h"
#include "server/validate.h"

namespace sluice {

// Parts that all calls of the HTTP API share; they outlive the calls.
struct OpenAiParts {
  InferenceParts core;
  RequestBounds bounds;
  std::string fingerprint;
};

class OpenAiCall {
 public:
  // Validates and admits every prompt, then starts them all; or refuses. Any thread.
  static void Start(const OpenAiParts* parts, std::shared_ptr<HttpExchange> exchange,
                    const TenantRef& tenant, const OpenAiRequest& request, CallRecord record);
  // Not OK: Start would refuse the request for its fields.
  static absl::Status Check(const OpenAiParts& parts, const OpenAiRequest& request);

 private:
  class Transport;

  OpenAiCall(const OpenAiParts* parts, std::shared_ptr<HttpExchange> exchange, CallRecord record,
             AnswerFormat format, size_t prompts);

  // Called by the transports, on the emitter thread.
  void Write(size_t prompt, std::vector<TokenEvent> events);
  void Finish(size_t prompt, absl::Status status);
  void Cut() { exchange_->Cut(); }

  void OnGone();
  void Record(const TokenEvent& event);
  // The call as a whole has failed: whatever runs is cancelled.
  void Fail(absl::Status status);
  void Complete();
  std::vector<std::shared_ptr<Stream>> streams();

  const OpenAiParts* const parts_;
  const std::shared_ptr<HttpExchange> exchange_;
  const bool chat_;
  const bool stream_;
  const bool pinned_;  // to its session's etag, which the caller did not name
  LiveCalls::Place place_;

  // Used by the emitter thread only, once the requests are submitted.
  CallRecord record_;
  OpenAiAnswer answer_;
  bool started_ = false;  // a chunk went out
  size_t open_;           // prompts that have not finished
  absl::Status failure_;

  Mutex mutex_;
  // Null once finished.
  std::vector<std::shared_ptr<Stream>> streams_ SLUICE_GUARDED_BY(mutex_);
};

HttpReply ErrorReply(const HttpError& error);
// The headers that name a session: ETag, x-session-id and x-session-position.
void AddSession(const AnswerSession& session, HttpReply* reply);
// `status` as the end of `exchange`, and in the log.
void RefuseCall(const InferenceParts& parts, HttpExchange* exchange, const CallRecord& record,
                const absl::Status& status, bool chat);

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_OPENAI_CALL_H_
