// A call and its session: from Submit to its turn, and from its last token to the commit.

#include <algorithm>
#include <utility>

#include "engine/engine.h"
#include "kernels/check.h"

namespace sluice {

void Engine::Open(Call* call) {
  const Request& request = call->request;
  call->commits = request.commit && request.kind == RequestKind::kGenerate;
  SLUICE_CHECK(!call->commits || request.n == 1);
  const StopConditions& stop = request.stop;
  call->exact =
      call->commits && (!stop.ignore_eos || !stop.token_ids.empty() || !stop.strings.empty());
  call->use = std::make_shared<SessionUse>();
  call->use->call = call->id;
  call->use->etag = request.etag;
  call->use->writes = call->commits;
  call->use->on_conflict = request.on_conflict;
  call->use->ready = [this, id = call->id](absl::Status status) {
    const auto it = calls_.find(id);
    if (it == calls_.end() || it->second->state != CallState::kOpening) return;
    // Its turn may come because the calls before it end now.
    if (status.ok() && !device_status_.ok()) {
      status = absl::UnavailableError("the device has failed");
    }
    if (status.ok()) {
      Begin(it->second.get());
    } else {
      Close(it->second.get(), std::move(status));
    }
  };
  const std::shared_ptr<SessionUse> use = call->use;
  sessions_.Acquire(request.tenant, request.session_id, use);
}

void Engine::Begin(Call* call) {
  Request& request = call->request;
  const State* state = call->use != nullptr ? call->use->state.get() : nullptr;
  if (state != nullptr) {
    call->carried = 1;
    call->base = state->info.position - 1;
    request.prompt.insert(request.prompt.begin(), state->info.last_token);
  } else if (!request.prompt_if_empty.empty()) {
    request.prompt = std::move(request.prompt_if_empty);
  }
  if (request.prompt.empty()) {
    return Close(call, absl::InvalidArgumentError(
                           "the prompt is empty, and the session has no history to go on from"));
  }
  call->sink->Push(StartedEvent{call->prompt_tokens(), request.seed});
  call->state = CallState::kQueued;
  waiting_.Push(call);
}

void Engine::EndWithoutRows(absl::Duration now) {
  // A prompt of one token that nothing follows becomes the history's last, which is not computed.
  std::vector<Call*> done;
  for (Call* call : admitted_) {
    if (call->prompt_rows() == 0 && call->state == CallState::kReady) done.push_back(call);
  }
  for (Call* call : done) {
    call->first_step_time = call->prompt_done_time = now;
    delivery_.DeliverEcho(call);
    delivery_.FinishAll(call, FinishReason::kMaxTokens, now);
    End(call);
  }
}

bool Engine::MustNotRunAhead() const {
  // A token that is computed before the one in front of it is known may be one too many, and a
  // state cannot go back. With a step in flight such a call would sit out the next one; all calls
  // go in step instead.
  return std::any_of(admitted_.begin(), admitted_.end(), [](const Call* call) {
    return call->exact && call->state == CallState::kReady && !call->in_prompt();
  });
}

void Engine::End(Call* call) {
  if (call->end != nullptr) {
    Commit(call);
  } else {
    Close(call, absl::OkStatus());
  }
}

void Engine::Commit(Call* call) {
  Sequence& sequence = call->sequences[0];
  SLUICE_CHECK(sequence.launched == sequence.received && call->steps_in_flight == 0);
  const Request& request = call->request;
  StateInfo info;
  info.position = call->base + static_cast<int64_t>(request.prompt.size()) + sequence.received;
  info.last_token = sequence.received > 0 ? sequence.last_token : request.prompt.back();
  info.undecoded = std::string(sequence.history->pending());
  info.numerics_id = backend_->info().numerics_id;
  HostState data;
  if (call->state == CallState::kSpilled) {
    const absl::Status status = backend_->Await(sequence.copy);
    if (!status.ok()) return FailDevice(status);
    data = std::move(sequence.host);
  }
  const int32_t slot = std::exchange(sequence.slot, -1);
  Leave(call);
  call->state = CallState::kCommitting;
  sessions_.Commit(call->use, std::move(info), slot, std::move(data), request.request_id,
                   request.durable, [this, id = call->id](absl::StatusOr<SessionInfo> session) {
                     const auto it = calls_.find(id);
                     if (it == calls_.end() || it->second->state != CallState::kCommitting) return;
                     Call* done = it->second.get();
                     if (!session.ok()) return Close(done, session.status());
                     done->end->session = std::make_shared<const SessionInfo>(*std::move(session));
                     done->sink->Push(*std::move(done->end));
                     Close(done, absl::OkStatus());
                   });
}

}  // namespace sluice
