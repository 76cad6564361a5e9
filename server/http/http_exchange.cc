#include "server/http/http_exchange.h"

#include <microhttpd.h>

#include <algorithm>
#include <cstring>

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

void HttpExchange::Reply(HttpReply reply) {
  MutexLock lock(&mutex_);
  SLUICE_CHECK(!reply_.has_value() && !streams_);
  reply_ = std::move(reply);
  Wake();
}

void HttpExchange::Start(HttpReply head) {
  MutexLock lock(&mutex_);
  SLUICE_CHECK(!reply_.has_value() && !streams_);
  reply_ = std::move(head);
  streams_ = true;
  Wake();
}

void HttpExchange::Send(std::string bytes, Done done) {
  {
    MutexLock lock(&mutex_);
    SLUICE_CHECK(streams_ && !ended_);
    if (!gone_) {
      pieces_.push_back({std::move(bytes), std::move(done)});
      Wake();
      return;
    }
  }
  if (done) done(false);
}

void HttpExchange::End() {
  MutexLock lock(&mutex_);
  ended_ = true;
  Wake();
}

void HttpExchange::Cut() {
  Abandon();
  watch_->Cut(connection_id_);
}

HttpExchange::Next HttpExchange::Advance() {
  MutexLock lock(&mutex_);
  if (gone_) return Next::kGone;
  if (reply_.has_value()) return streams_ ? Next::kStream : Next::kReply;
  Suspend();
  return Next::kSuspended;
}

HttpReply HttpExchange::TakeReply() {
  MutexLock lock(&mutex_);
  return std::exchange(*reply_, HttpReply());
}

ssize_t HttpExchange::Read(char* out, size_t max) {
  std::vector<Done> done;
  ssize_t result = 0;
  {
    MutexLock lock(&mutex_);
    done.swap(copied_);  // the socket has them, or there would be no next Read
    size_t size = 0;
    while (size < max && !pieces_.empty()) {
      Piece& piece = pieces_.front();
      const size_t part = std::min(max - size, piece.bytes.size() - read_);
      std::memcpy(out + size, piece.bytes.data() + read_, part);
      size += part;
      read_ += part;
      if (read_ < piece.bytes.size()) break;
      if (piece.done) copied_.push_back(std::move(piece.done));
      pieces_.pop_front();
      read_ = 0;
    }
    result = static_cast<ssize_t>(size);
    if (gone_) {
      result = MHD_CONTENT_READER_END_WITH_ERROR;
    } else if (size == 0 && ended_) {
      result = MHD_CONTENT_READER_END_OF_STREAM;
    } else if (size == 0) {
      Suspend();
    }
  }
  for (const Done& one : done) one(true);
  return result;
}

void HttpExchange::Complete(bool ok) {
  {
    MutexLock lock(&mutex_);
    connection_ = nullptr;
    suspended_ = false;
  }
  if (!ok) Abandon();
  std::function<void()> on_gone;  // destroyed without the lock
  MutexLock lock(&mutex_);
  gone_ = true;
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
    Wake();
  }
  for (const Done& done : undone) done(false);
  if (on_gone) on_gone();
}

// ---- Under the lock ----

void HttpExchange::Wake() {
  if (suspended_) MHD_resume_connection(connection_);
  suspended_ = false;
}

void HttpExchange::Suspend() {
  suspended_ = true;
  MHD_suspend_connection(connection_);
}

std::vector<HttpExchange::Done> HttpExchange::TakeUndone() {
  std::vector<Done> out;
  out.swap(copied_);
  for (Piece& piece : pieces_) {
    if (piece.done) out.push_back(std::move(piece.done));
  }
  pieces_.clear();
  read_ = 0;
  return out;
}

}  // namespace sluice
