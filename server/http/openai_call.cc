#include "server/http/openai_call.h"

#include <algorithm>
#include <optional>
#include <variant>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "server/http/session_json.h"
#include "server/start_call.h"
#include "server/status.h"

namespace sluice {
namespace {

HttpReply StreamHead(const std::optional<AnswerSession>& session) {
  HttpReply head;
  head.content_type = "text/event-stream; charset=utf-8";
  head.headers.emplace_back("Cache-Control", "no-cache");
  head.headers.emplace_back("X-Accel-Buffering", "no");  // nginx would gather the chunks
  if (session.has_value()) head.headers.emplace_back("x-session-id", session->id);
  return head;
}

AnswerFormat FormatOf(const OpenAiParts& parts, const OpenAiRequest& request,
                      const std::string& request_id) {
  const v1::GenerateRequest& first = request.prompts.front();
  AnswerFormat format;
  format.chat = request.chat;
  format.stream = request.stream;
  format.include_usage = request.include_usage;
  format.logprobs = first.output().has_logprobs();
  format.token_ids = request.token_ids || !parts.core.tokenizer->has_text();
  format.prompt_logprobs = first.output().prompt_logprobs();
  format.n = first.has_n() ? first.n() : 1;
  format.own_stop = request.own_stop;
  format.id = absl::StrCat(request.chat ? "chatcmpl-" : "cmpl-", request_id);
  format.created = absl::ToUnixSeconds(absl::Now());
  format.model = parts.bounds.model_name;
  format.fingerprint = parts.fingerprint;
  format.session = request.session;
  if (request.turn.has_value()) {
    format.pinned = first.etag().empty();
    format.turn =
        AnswerTurn{request.turn->messages, request.turn->resent, request.turn->from_start};
  }
  return format;
}

AnswerPrompt PromptOf(const Tokenizer* tokenizer, const OpenAiRequest& request,
                      const Request& parsed, bool echoed) {
  const bool from_start = request.turn.has_value() && request.turn->from_start;
  const bool on_history =
      request.session.has_value() && request.session->position > 0 && !from_start;
  const bool starts = request.session.has_value() && !on_history;
  return AnswerPrompt(tokenizer, starts ? parsed.prompt_if_empty : parsed.prompt, echoed,
                      on_history);
}

// A chat's own end comes beside those that a request may have.
RequestBounds BoundsOf(const OpenAiParts& parts, const OpenAiRequest& request) {
  RequestBounds bounds = parts.bounds;
  if (!request.own_stop.empty()) ++bounds.max_stop_strings;
  return bounds;
}

bool IsEtagMismatch(const absl::Status& status) {
  return absl::IsAborted(status) && absl::StartsWith(status.message(), "the session has changed");
}

// The turn was planned for the session as it was: another history would make its text wrong.
void TakeTurn(const OpenAiRequest& request, Request* out) {
  if (out->etag.empty()) out->etag = request.session->etag;
  out->from_start = request.turn->from_start;
  if (out->commit) out->note = request.turn->note;
}

}  // namespace

void AddSession(const AnswerSession& session, HttpReply* reply) {
  reply->headers.emplace_back("ETag", QuotedEtag(session.etag));
  reply->headers.emplace_back("x-session-id", session.id);
  reply->headers.emplace_back("x-session-position", absl::StrCat(session.position));
}

HttpReply ErrorReply(const HttpError& error) {
  HttpReply reply;
  reply.status = error.status;
  reply.body = ErrorJson(error);
  if (error.retry_ms.has_value()) {
    const int64_t seconds = (*error.retry_ms + 999) / 1000;
    reply.headers.emplace_back("Retry-After", absl::StrCat(std::max<int64_t>(seconds, 1)));
    reply.headers.emplace_back("retry-after-ms", absl::StrCat(*error.retry_ms));
  }
  return reply;
}

void RefuseCall(const InferenceParts& parts, HttpExchange* exchange, const CallRecord& record,
                const absl::Status& status, bool chat) {
  parts.stats->Done(record, static_cast<grpc::StatusCode>(status.code()), parts.clock->Now());
  exchange->Reply(ErrorReply(ToHttpError(status, chat)));
}

// A prompt's side of the call.
class OpenAiCall::Transport final : public StreamTransport {
 public:
  Transport(std::shared_ptr<OpenAiCall> call, size_t prompt)
      : call_(std::move(call)), prompt_(prompt) {}

  void Write(std::vector<TokenEvent> events) override { call_->Write(prompt_, std::move(events)); }
  void Finish(absl::Status status) override { call_->Finish(prompt_, std::move(status)); }
  void TryCancel() override { call_->Cut(); }

 private:
  const std::shared_ptr<OpenAiCall> call_;
  const size_t prompt_;
};

absl::Status OpenAiCall::Check(const OpenAiParts& parts, const OpenAiRequest& request) {
  const RequestBounds bounds = BoundsOf(parts, request);
  for (const v1::GenerateRequest& prompt : request.prompts) {
    const absl::StatusOr<Request> parsed = ParseGenerate(prompt, bounds, *parts.core.tokenizer, 0);
    if (!parsed.ok()) return parsed.status();
    if (parsed->prompt.empty() && parsed->prompt_if_empty.empty()) {
      FieldViolations violations;
      violations.Add("text", "is empty, and so is the session");
      return violations.ToStatus();
    }
  }
  return absl::OkStatus();
}

void OpenAiCall::Start(const OpenAiParts* parts, std::shared_ptr<HttpExchange> exchange,
                       const TenantRef& tenant, const OpenAiRequest& request, CallRecord record) {
  const InferenceParts& core = parts->core;
  const auto refuse = [&](const absl::Status& status) {
    RefuseCall(core, exchange.get(), record, status, request.chat);
  };
  if (request.chat && !core.tokenizer->has_text()) {
    FieldViolations violations;
    violations.Add("messages", "is text, which needs a tokenizer, and this daemon has none");
    return refuse(violations.ToStatus());
  }
  AnswerFormat format = FormatOf(*parts, request, record.request_id);
  const RequestBounds bounds = BoundsOf(*parts, request);
  std::vector<Request> requests;
  for (const v1::GenerateRequest& prompt : request.prompts) {
    absl::StatusOr<Request> parsed = ParseGenerate(prompt, bounds, *core.tokenizer, RandomBits());
    if (!parsed.ok()) return refuse(parsed.status());
    parsed->request_id = record.request_id;
    if (request.turn.has_value()) TakeTurn(request, &*parsed);
    format.prompts.push_back(PromptOf(core.tokenizer, request, *parsed, format.prompt_logprobs));
    requests.push_back(*std::move(parsed));
  }
  const std::shared_ptr<OpenAiCall> call(
      new OpenAiCall(parts, exchange, record, std::move(format), requests.size()));
  const absl::Status started =
      StartCall(core, tenant, std::move(requests),
                {[&](size_t prompt) { return std::make_shared<Transport>(call, prompt); },
                 [&](std::vector<std::shared_ptr<Stream>> streams) {
                   MutexLock lock(&call->mutex_);
                   call->streams_ = std::move(streams);
                 },
                 [&](LiveCalls::Place place) {
                   exchange->set_on_gone([call] { call->OnGone(); });
                   if (request.stream)
                     exchange->PlanEvents(StreamHead(request.session), core.clock->Now());
                   call->place_ = std::move(place);
                 }});
  if (!started.ok()) refuse(started);
}

OpenAiCall::OpenAiCall(const OpenAiParts* parts, std::shared_ptr<HttpExchange> exchange,
                       CallRecord record, AnswerFormat format, size_t prompts)
    : parts_(parts),
      exchange_(std::move(exchange)),
      chat_(format.chat),
      stream_(format.stream),
      pinned_(format.pinned),
      record_(std::move(record)),
      answer_(std::move(format), parts->core.tokenizer),
      open_(prompts),
      streams_(prompts) {}

void OpenAiCall::Write(size_t prompt, std::vector<TokenEvent> events) {
  for (const TokenEvent& event : events) Record(event);
  std::shared_ptr<Stream> stream;
  {
    MutexLock lock(&mutex_);
    stream = streams_[prompt];
  }
  std::string bytes = answer_.Add(prompt, events);
  if (!stream_ && static_cast<int64_t>(answer_.size()) > parts_->bounds.max_message_bytes) {
    Fail(absl::InvalidArgumentError(absl::StrCat("the answer has more than max_message_bytes (",
                                                 parts_->bounds.max_message_bytes,
                                                 "): ask for a stream, or for less")));
  }
  if (bytes.empty()) return stream->OnWriteDone(true);
  if (!std::exchange(started_, true)) exchange_->BeginEvents();
  exchange_->Send(std::move(bytes), [stream](bool ok) { stream->OnWriteDone(ok); });
}

void OpenAiCall::Finish(size_t prompt, absl::Status status) {
  {
    MutexLock lock(&mutex_);
    streams_[prompt].reset();  // else the two would keep each other alive
  }
  if (status.ok()) status = answer_.failure();
  if (pinned_ && IsEtagMismatch(status)) {
    status = absl::AbortedError("the session is busy: another call has moved it on meanwhile");
  }
  if (!status.ok()) Fail(std::move(status));
  if (--open_ == 0) Complete();
}

void OpenAiCall::Fail(absl::Status status) {
  if (!failure_.ok()) return;
  failure_ = std::move(status);
  for (const std::shared_ptr<Stream>& stream : streams()) stream->OnCancel();
}

void OpenAiCall::Complete() {
  // Before the client can know that the call has ended.
  const InferenceParts& core = parts_->core;
  core.stats->Done(record_, static_cast<grpc::StatusCode>(failure_.code()), core.clock->Now());
  if (!stream_) {
    HttpReply reply;
    if (failure_.ok()) {
      reply.body = answer_.Whole();
      if (answer_.session().has_value()) AddSession(*answer_.session(), &reply);
    } else {
      reply = ErrorReply(ToHttpError(failure_, chat_));
    }
    return exchange_->Reply(std::move(reply));
  }
  // An error is the answer, unless a part of another one went out.
  if (!failure_.ok() && exchange_->ReplyInstead(ErrorReply(ToHttpError(failure_, chat_)))) return;
  exchange_->BeginEvents();
  exchange_->Send(failure_.ok() ? answer_.StreamEnd()
                                : ServerSentEvent(ErrorJson(ToHttpError(failure_, chat_))),
                  nullptr);
  exchange_->End();
}

void OpenAiCall::OnGone() {
  for (const std::shared_ptr<Stream>& stream : streams()) stream->OnCancel();
}

std::vector<std::shared_ptr<Stream>> OpenAiCall::streams() {
  MutexLock lock(&mutex_);
  std::vector<std::shared_ptr<Stream>> out;
  for (const std::shared_ptr<Stream>& stream : streams_) {
    if (stream != nullptr) out.push_back(stream);
  }
  return out;
}

void OpenAiCall::Record(const TokenEvent& event) {
  if (const auto* started = std::get_if<StartedEvent>(&event)) {
    record_.prompt_tokens += started->prompt_tokens;
  } else if (const auto* finished = std::get_if<FinishedEvent>(&event)) {
    record_.new_tokens += finished->usage.new_tokens;
    record_.time_to_first_token = finished->timings.time_to_first_token;
  }
}

}  // namespace sluice
