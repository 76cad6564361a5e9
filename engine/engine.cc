#include "engine/engine.h"

#include <algorithm>
#include <utility>

#include "absl/strings/str_cat.h"
#include "kernels/check.h"

namespace sluice {
namespace {

Stage StageOf(const Call& call) {
  if (call.prompt_launched == call.reused) return Stage::kQueued;
  return call.prompt_done < call.prompt_rows() ? Stage::kPrefill : Stage::kDecode;
}

}  // namespace

Engine::Engine(Backend* backend, Model* model, const Tokenizer* tokenizer, const Clock* clock,
               const EngineOptions& options)
    : backend_(backend),
      model_(model),
      clock_(clock),
      options_(options),
      builder_(backend->info().prompt_grid, options.max_batch_tokens, options.eos_token_ids),
      pacer_(backend->info().prompt_grid),
      delivery_(tokenizer, options.eos_token_ids, &stats_),
      slots_(options.slots),
      count_tables_(options.slots),
      copies_(backend, MakeStateTable(model->spec())),
      states_(&copies_, backend, &slots_, clock,
              {.host_bytes = options.session_limits.host_state_bytes,
               .disk_bytes = options.session_limits.disk_state_bytes,
               .has_store = options.has_store},
              &stats_),
      sessions_(&states_, clock, &stats_,
                {.limits = options.session_limits,
                 .fingerprint = options.fingerprint,
                 .numerics_id = backend->info().numerics_id,
                 .vocab = model->spec().vocab,
                 .has_store = options.has_store,
                 .shared = options.shared_store,
                 .last_uses_since = options.last_uses_since,
                 .on_wrong_clock = options.on_wrong_clock,
                 .index = options.session_index,
                 .random = options.random}),
      prefixes_(&states_, backend->info().prompt_grid, options.prefix_cache_bytes,
                backend->info().numerics_id, &stats_),
      places_{backend, &copies_, &states_, &slots_, &count_tables_},
      readers_(places_, clock, options.slot_patience, &stats_),
      placement_(places_, tokenizer, clock, &prefixes_, &readers_, &stats_, [this](RequestId id) {
        const auto it = calls_.find(id);
        return it != calls_.end() ? it->second.get() : nullptr;
      }) {
  SLUICE_CHECK(options.max_batch_tokens >= options.slots + backend->info().prompt_grid);
  stats_.slots_total.Set(options.slots);
  sessions_.set_cancel_call([this](uint64_t id, absl::Status status) { Cancel(id, status); });
}

Engine::~Engine() { SLUICE_CHECK(live_ == 0); }

RequestId Engine::Submit(Request request, std::shared_ptr<TokenSink> sink) {
  SLUICE_CHECK(request.n >= 1 && request.n <= options_.slots);
  auto owned = std::make_unique<Call>();
  Call* call = owned.get();
  const RequestId id = call->id = ++last_id_;
  call->request = std::move(request);
  call->sink = std::move(sink);
  call->submitted = clock_->Now();
  if (call->request.kind == RequestKind::kScore) {
    // The row after the last token, when it is asked for, is computed as a token that nobody sees.
    call->request.stop.max_new_tokens = call->request.score_alternatives > 0 ? 1 : 0;
  }
  calls_.emplace(id, std::move(owned));
  ++live_;
  stats_.requests.Add();
  stats_.prompt_length.Observe(static_cast<double>(call->request.prompt.size()));
  if (call->request.kind == RequestKind::kGenerate) {
    stats_.max_new_tokens.Observe(call->request.stop.max_new_tokens);
    stats_.sequences.Observe(call->request.n);
  }
  if (call->expiry() != absl::InfiniteDuration()) expiries_.emplace(call->expiry(), id);
  if (!device_status_.ok()) {
    Close(call, absl::UnavailableError("the device has failed"));
  } else if (call->request.session_id.empty()) {
    Begin(call);
  } else {
    Open(call);
  }
  return id;
}

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
  const size_t prompt = std::max(request.prompt.size(), request.prompt_if_empty.size());
  call->use->most_tokens = static_cast<int64_t>(prompt) + stop.max_new_tokens;
  if (GrowingStates()) {
    call->use->most_tokens = std::min(call->use->most_tokens, options_.max_attention_tokens);
  }
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
  if (request.from_start && call->use != nullptr) {
    call->use->pin.Release();
    call->use->state.reset();
  }
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
  if (absl::Status fits = FitLimit(call); !fits.ok()) return Close(call, std::move(fits));
  call->sink->Push(StartedEvent{call->prompt_tokens(), request.seed});
  placement_.Queue(call);
}

absl::Status Engine::FitLimit(Call* call) {
  if (!GrowingStates()) return absl::OkStatus();
  StopConditions& stop = call->request.stop;
  const int64_t limit = options_.max_attention_tokens;
  const int64_t begun = call->length() - stop.max_new_tokens;
  const bool generates = call->request.kind == RequestKind::kGenerate && stop.max_new_tokens > 0;
  if (begun + (generates ? 1 : 0) > limit) {
    return absl::OutOfRangeError(absl::StrCat(
        "the prompt and what is before it have ", begun, " tokens, which leaves no room",
        generates ? " for one more" : "", ": this model's sequences have at most ", limit,
        " here (--max_attention_tokens)"));
  }
  const int64_t left = limit - begun;
  if (generates && stop.max_new_tokens > left) {
    if (stop.max_new_tokens_given) {
      return absl::OutOfRangeError(absl::StrCat("stop.max_new_tokens is ", stop.max_new_tokens,
                                                " behind ", begun, " tokens, must be at most ",
                                                left, ": this model's sequences have at most ",
                                                limit, " tokens here (--max_attention_tokens)"));
    }
    stop.max_new_tokens = static_cast<int32_t>(left);
    stop.min_new_tokens = std::min(stop.min_new_tokens, stop.max_new_tokens);
  }
  const int64_t pages = backend_->pages().total;
  if (const int64_t most = places_.MostPages(*call); most > pages) {
    return absl::ResourceExhaustedError(absl::StrCat(
        "the call's ", call->request.n, " sequences take up to ", most,
        " pages of attention memory, the device has ", pages, " (--device_state_bytes)"));
  }
  return absl::OkStatus();
}

void Engine::Cancel(RequestId id, absl::Status status) {
  const auto it = calls_.find(id);
  if (it == calls_.end() || it->second->state == CallState::kClosed) return;
  if (it->second->state == CallState::kCommitting) return;  // too late: it may be on disk already
  if (absl::IsCancelled(status)) stats_.cancelled[static_cast<size_t>(StageOf(*it->second))].Add();
  Close(it->second.get(), std::move(status));
}

bool Engine::Step() {
  if (!device_status_.ok()) return false;
  const absl::Duration now = clock_->Now();
  Expire(now);
  sessions_.Expire(now);
  copies_.Poll();
  states_.Poll();
  readers_.PollLoads(placement_.admitted());
  if (DeviceFailed()) return false;
  readers_.PollReaders(placement_.admitted(), now);
  placement_.PlaceWaiting(now);
  EndWithoutRows(now);
  const size_t pipeline =
      MustNotRunAhead() ? 1 : static_cast<size_t>(backend_->info().steps_in_flight);
  const bool launched = in_flight_.size() < pipeline && Launch(now);
  const bool finish = in_flight_.size() >= pipeline || (!launched && !in_flight_.empty());
  if (finish) FinishOldestStep();
  SetGauges();
  const bool worked = launched || finish || AwaitCopies() || copies_.AwaitOne();
  return !DeviceFailed() && worked;
}

bool Engine::AwaitCopies() {
  const absl::StatusOr<bool> waited = readers_.AwaitCopies(placement_.admitted());
  if (!waited.ok()) FailDevice(waited.status());
  return waited.ok() && *waited;
}

bool Engine::DeviceFailed() {
  if (device_status_.ok() && !copies_.status().ok()) FailDevice(copies_.status());
  return !device_status_.ok();
}

absl::Duration Engine::NextDeadline() const {
  absl::Duration next = expiries_.empty() ? absl::InfiniteDuration() : expiries_.begin()->first;
  next = std::min(next, sessions_.NextDeadline());
  if (placement_.waiting() == 0) return next;
  return std::min(next, readers_.NextDeadline(placement_.admitted()));
}

// ---- Steps ----

bool Engine::Launch(absl::Duration now) {
  if (idle_batches_.empty()) idle_batches_.push_back(std::make_unique<Batch>());
  std::unique_ptr<Batch> batch = std::move(idle_batches_.back());
  idle_batches_.pop_back();
  if (!builder_.Build(placement_.admitted(), &pacer_, batch.get())) {
    idle_batches_.push_back(std::move(batch));
    return false;
  }
  for (const BatchShare& share : batch->shares) {
    if (share.call->state == CallState::kClosed) stats_.orphan_rows.Add(share.rows());
    if (share.call->first_step_time == absl::InfiniteDuration()) {
      share.call->first_step_time = now;
      stats_.queue_seconds.Observe(absl::ToDoubleSeconds(now - share.call->submitted));
    }
  }
  batch->launched = now;
  batch->ticket = model_->Step(&batch->rows);
  stats_.steps.Add();
  stats_.step_rows.Observe(batch->num_rows);
  stats_.held_rows.Add(static_cast<uint64_t>(batch->held_rows));
  ForkAfterPrompt(*batch);
  placement_.KeepPrefixes(*batch);
  in_flight_.push_back(std::move(batch));
  return true;
}

void Engine::ForkAfterPrompt(const Batch& batch) {
  for (const BatchShare& share : batch.shares) {
    if (share.prompt_end == share.prompt_begin || share.call->in_prompt()) continue;
    const std::vector<Sequence>& sequences = share.call->sequences;
    for (size_t i = 1; i < sequences.size(); ++i) {
      backend_->CopyState(sequences[0].slot, sequences[i].slot);
    }
  }
}

void Engine::FinishOldestStep() {
  std::unique_ptr<Batch> batch = std::move(in_flight_.front());
  in_flight_.pop_front();
  const absl::Status status = backend_->Await(batch->ticket);
  const absl::Duration now = clock_->Now();
  if (!status.ok()) {
    for (const BatchShare& share : batch->shares) --share.call->steps_in_flight;
    return FailDevice(status);
  }
  stats_.step_seconds.Observe(absl::ToDoubleSeconds(now - batch->launched));
  pacer_.Observe(*batch, now - std::max(batch->launched, last_finish_));
  last_finish_ = now;
  for (const BatchShare& share : batch->shares) {
    Call* call = share.call;
    --call->steps_in_flight;
    if (call->state == CallState::kClosed) {
      stats_.discarded_rows.Add(share.rows());
      Release(call);
      continue;
    }
    const absl::Status delivered = delivery_.Deliver(*batch, share, now);
    if (call->numeric_fault) prefixes_.Distrust(call->request.tenant, call->request.prompt);
    if (!delivered.ok()) {
      Close(call, delivered);
    } else if (call->open_sequences == 0) {
      End(call);
    } else if (call->ending && call->steps_in_flight == 0) {
      delivery_.FinishAll(call, FinishReason::kTimeLimit, now);
      End(call);
    }
  }
  idle_batches_.push_back(std::move(batch));
}

void Engine::EndWithoutRows(absl::Duration now) {
  // A prompt of one token that nothing follows becomes the history's last, which is not computed.
  std::vector<Call*> done;
  for (Call* call : placement_.admitted()) {
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
  const std::vector<Call*>& admitted = placement_.admitted();
  // A token that is computed before the one in front of it is known may be one too many, and a
  // state cannot go back. With a step in flight such a call would sit out the next one; all calls
  // go in step instead.
  return std::any_of(admitted.begin(), admitted.end(), [](const Call* call) {
    return call->exact && call->state == CallState::kReady && !call->in_prompt();
  });
}

// ---- The way out ----

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
  if (request.note != nullptr) info.note = request.note(sequence.said);
  if (info.note.size() > kMaxNoteBytes) info.note.clear();
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

void Engine::Expire(absl::Duration now) {
  while (!expiries_.empty() && expiries_.begin()->first <= now) {
    Call* call = calls_.at(expiries_.begin()->second).get();
    const bool past_deadline = call->request.deadline <= now;
    const bool begun = call->state != CallState::kOpening && call->state != CallState::kQueued &&
                       call->state != CallState::kFollowing;
    const bool prompt_done = begun && call->prompt_done == call->prompt_rows();
    if (!past_deadline && prompt_done) {
      if (call->commits && call->steps_in_flight > 0) {
        call->ending = true;  // what is being computed belongs to the history
        expiries_.erase(expiries_.begin());
        continue;
      }
      delivery_.FinishAll(call, FinishReason::kTimeLimit, now);
      End(call);
      continue;
    }
    stats_.deadline_exceeded[static_cast<size_t>(StageOf(*call))].Add();
    Close(call, absl::DeadlineExceededError(
                    past_deadline ? "the call's deadline passed"
                                  : "stop.time_limit passed before the prompt was processed"));
  }
}

void Engine::Close(Call* call, absl::Status status) {
  Leave(call);
  if (status.ok()) {
    stats_.request_seconds.Observe(absl::ToDoubleSeconds(clock_->Now() - call->submitted));
  } else if (!absl::IsCancelled(status) && !absl::IsDeadlineExceeded(status)) {
    stats_.failed.Add();
  }
  call->state = CallState::kClosed;
  --live_;
  call->sink->Close(std::move(status));
  call->sink.reset();
  const std::shared_ptr<SessionUse> use = std::move(call->use);
  Release(call);
  if (use != nullptr) sessions_.Release(use);
}

void Engine::Leave(Call* call) {
  const absl::Duration expiry = call->expiry();
  if (expiry != absl::InfiniteDuration()) expiries_.erase({expiry, call->id});
  if (call->state == CallState::kOpening || call->state == CallState::kCommitting) return;
  placement_.Leave(call);
}

void Engine::Release(Call* call) {
  if (call->steps_in_flight == 0) calls_.erase(call->id);
}

void Engine::FailDevice(const absl::Status& status) {
  device_status_ = status;
  in_flight_.clear();
  states_.FailDevice(absl::UnavailableError("the device has failed"));
  std::vector<RequestId> open;
  for (auto& [id, call] : calls_) {
    call->steps_in_flight = 0;
    if (call->state != CallState::kClosed) open.push_back(id);
  }
  // One that closes may close others that waited for it.
  for (RequestId id : open) {
    const auto it = calls_.find(id);
    if (it == calls_.end() || it->second->state == CallState::kClosed) continue;
    Close(it->second.get(), absl::UnavailableError("the device has failed"));
  }
  calls_.clear();
}

void Engine::SetGauges() {
  int64_t running = 0;
  int64_t paused = 0;
  for (const Call* call : placement_.admitted()) {
    if (call->state == CallState::kReady) running += call->open_sequences;
    if (call->state == CallState::kPaused || call->state == CallState::kSpilled) {
      paused += call->open_sequences;
    }
  }
  stats_.waiting.Set(placement_.waiting());
  stats_.running.Set(running);
  stats_.paused.Set(paused);
  sessions_.SetGauges();
  states_.SetGauges();
  prefixes_.SetGauges();
  // A committed state in a slot is in nobody's way.
  stats_.slots_used.Set(slots_.used() - stats_.device_states.value());
  if (!GrowingStates()) return;
  const PageCounts pages = backend_->pages();
  stats_.pages_total.Set(pages.total);
  stats_.pages_used.Set(pages.total - pages.free);
  stats_.pages_shared.Set(pages.shared);
  int64_t spilled = 0;
  for (const Call* call : placement_.admitted()) {
    if (call->state == CallState::kSpilled) spilled += DevicePlaces::PagesFromHost(*call);
  }
  stats_.pages_spilled.Set(spilled);
}

}  // namespace sluice
