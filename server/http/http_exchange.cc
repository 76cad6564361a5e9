#include "server/http/http_exchange.h"

#include "kernels/check.h"

namespace sluice {

void HttpExchange::set_on_gone(std::function<void()> on_gone) {
  {
    MutexLock lock(&mutex_);
    if (!gone_) {
      on_gone_ = std::move(on_gone);
      return;
    }
  }
  on_gone();
}

void HttpExchange::Reply(HttpReply reply) { Answer(std::move(reply), false); }

void HttpExchange::Start(HttpReply head) { Answer(std::move(head), true); }

void HttpExchange::Answer(HttpReply reply, bool streams) {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(!answered_);
    SetAnswer(std::move(reply), streams);
    wake = NeedsWake();
  }
  if (wake) wake_();
}

void HttpExchange::SetAnswer(HttpReply reply, bool streams) {
  reply.headers.insert(reply.headers.end(), common_headers_.begin(), common_headers_.end());
  answered_ = true;
  reply_ = std::move(reply);
  streams_ = streams;
  ended_ = !streams;
}

void HttpExchange::PlanEvents(HttpReply head, absl::Duration now) {
  MutexLock lock(&mutex_);
  SLUICE_CHECK(!answered_ && !events_);
  events_ = true;
  planned_ = std::move(head);
  planned_at_ = now;
}

void HttpExchange::BeginEvents() {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    if (!planned_.has_value()) return;
    SetAnswer(*std::exchange(planned_, std::nullopt), true);
    wake = NeedsWake();
  }
  if (wake) wake_();
}

bool HttpExchange::ReplyInstead(HttpReply reply) {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    if (answered_) return false;
    planned_.reset();
    events_ = false;
    SetAnswer(std::move(reply), false);
    wake = NeedsWake();
  }
  if (wake) wake_();
  return true;
}

bool HttpExchange::BeginIfPlannedBy(absl::Duration since) {
  MutexLock lock(&mutex_);
  if (!planned_.has_value() || planned_at_ > since) return false;
  SetAnswer(*std::exchange(planned_, std::nullopt), true);
  return true;
}

bool HttpExchange::is_events() {
  MutexLock lock(&mutex_);
  return events_;
}

void HttpExchange::Send(std::string bytes, Done done) {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(streams_ && !ended_);
    if (!gone_) {
      if (!bytes.empty()) pieces_.push_back(std::move(bytes));
      if (done) waiting_.push_back(std::move(done));
      done = nullptr;
      wake = NeedsWake();
    }
  }
  if (wake) wake_();
  if (done) done(false);
}

void HttpExchange::End() {
  bool wake = false;
  {
    MutexLock lock(&mutex_);
    ended_ = true;
    wake = NeedsWake();
  }
  if (wake) wake_();
}

void HttpExchange::Cut() {
  Abandon();
  wake_();
}

HttpExchange::Output HttpExchange::Take() {
  MutexLock lock(&mutex_);
  woken_ = false;
  Output out;
  out.stream = streams_;
  out.ended = ended_;
  out.head.swap(reply_);
  out.pieces.swap(pieces_);
  for (Done& done : waiting_) taken_.push_back(std::move(done));
  waiting_.clear();
  return out;
}

bool HttpExchange::answered() {
  MutexLock lock(&mutex_);
  return answered_;
}

bool HttpExchange::gone() {
  MutexLock lock(&mutex_);
  return gone_;
}

void HttpExchange::Written() {
  std::vector<Done> done;
  {
    MutexLock lock(&mutex_);
    done.swap(taken_);
  }
  for (const Done& one : done) one(true);
}

void HttpExchange::Complete(bool ok) {
  if (!ok) Abandon();
  std::function<void()> on_gone;  // destroyed without the lock
  MutexLock lock(&mutex_);
  gone_ = true;
  woken_ = true;  // nobody is left to be woken
  on_gone.swap(on_gone_);
}

void HttpExchange::Abandon() {
  std::vector<Done> undone;
  std::function<void()> on_gone;
  {
    MutexLock lock(&mutex_);
    if (gone_) return;
    gone_ = true;
    undone = TakeUndone();
    on_gone = std::exchange(on_gone_, nullptr);
  }
  for (const Done& done : undone) done(false);
  if (on_gone) on_gone();
}

std::vector<HttpExchange::Done> HttpExchange::TakeUndone() {
  std::vector<Done> out;
  out.swap(taken_);
  for (Done& done : waiting_) out.push_back(std::move(done));
  waiting_.clear();
  pieces_.clear();
  return out;
}

}  // namespace sluice
