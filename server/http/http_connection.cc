#include "server/http/http_connection.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <sys/socket.h>
#include <unistd.h>

#include <algorithm>
#include <boost/asio/post.hpp>
#include <utility>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"

namespace sluice {
namespace {

using boost::asio::ip::tcp;
using ErrorCode = boost::system::error_code;

// Bytes that a client may send ahead of an answer.
constexpr size_t kMaxAhead = 16 * 1024;
// Bytes of a refused request's body that are read to keep its connection for the next request.
constexpr uint64_t kMaxDropped = 64 * 1024;
// Bytes of an answer that the system holds, about, when the peer does not take them.
constexpr int kUnsentBytes = 32 * 1024;
// Nothing sensible comes behind a head that is at fault, so little of it is read.
constexpr uint64_t kMaxBehindFault = 64 * 1024;
// A body that is taken as it comes may take longer than others, if so many bytes come in a second.
constexpr double kSlowestStream = 64 * 1024;
// A comment of server-sent events: readers pass over it.
constexpr absl::string_view kComment = ": still here\n\n";
// Time for the peer to see the last answer and to close.
constexpr absl::Duration kLinger = absl::Seconds(2);

// The peer's address in gRPC's form, so that both doors know it by one name.
std::string PeerOf(int fd) {
  sockaddr_storage address{};
  socklen_t size = sizeof(address);
  char text[INET6_ADDRSTRLEN] = "";
  if (getpeername(fd, reinterpret_cast<sockaddr*>(&address), &size) != 0) return "";
  if (address.ss_family == AF_INET) {
    inet_ntop(AF_INET, &reinterpret_cast<const sockaddr_in&>(address).sin_addr, text, sizeof(text));
    return absl::StrCat("ipv4:", text);
  }
  inet_ntop(AF_INET6, &reinterpret_cast<const sockaddr_in6&>(address).sin6_addr, text,
            sizeof(text));
  return absl::StrCat("ipv6:%5B", text, "%5D");
}

// The system's probes find a peer that is lost without a word. Events that it has not taken wait in
// the ring, not in megabytes of socket buffer.
void Configure(int fd, const HttpServerOptions& options) {
  const auto seconds = [](absl::Duration duration) {
    return static_cast<int>(std::clamp<int64_t>(absl::ToInt64Seconds(duration), 1, 32767));
  };
  const int on = 1;
  const int idle = seconds(options.keepalive_time);
  const int answer = seconds(options.keepalive_timeout);
  const int probes = 1;
  const int unsent = kUnsentBytes;
  setsockopt(fd, SOL_SOCKET, SO_KEEPALIVE, &on, sizeof(on));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPIDLE, &idle, sizeof(idle));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPINTVL, &answer, sizeof(answer));
  setsockopt(fd, IPPROTO_TCP, TCP_KEEPCNT, &probes, sizeof(probes));
  setsockopt(fd, IPPROTO_TCP, TCP_NOTSENT_LOWAT, &unsent, sizeof(unsent));
}

}  // namespace

HttpConnection::HttpConnection(HttpServerContext* context, uint64_t id, int fd)
    : context_(context),
      id_(id),
      socket_(context->io),
      peer_(PeerOf(fd)),
      since_(context->clock->Now()),
      parser_(context->options.max_head_bytes) {
  Configure(fd, context->options);
  ErrorCode error;
  socket_.assign(peer_.substr(0, 4) == "ipv6" ? tcp::v6() : tcp::v4(), fd, error);
  if (error) ::close(fd);
  socket_.non_blocking(true, error);
}

void HttpConnection::Start() { WaitReadable(); }

bool HttpConnection::CanBeEvicted() const {
  if (phase_ == Phase::kServing) {
    return context_->options.evict_slow_readers && waits_writable_ && ended_;
  }
  return exchange_ == nullptr || !context_->options.callers_authenticate || !exchange_->is_call();
}

// ---- The socket ----

void HttpConnection::WaitReadable() {
  if (closed_ || waits_readable_ || peer_ended_) return;
  if (phase_ == Phase::kServing && in_.size() >= kMaxAhead) return;
  waits_readable_ = true;
  socket_.async_wait(tcp::socket::wait_read, [self = shared_from_this()](const ErrorCode&) {
    self->waits_readable_ = false;
    if (!self->closed_) self->OnReadable();
  });
}

void HttpConnection::OnReadable() {
  size_t most = context_->scratch.size();
  if (phase_ == Phase::kServing) most = kMaxAhead - std::min(kMaxAhead, in_.size());
  ErrorCode error;
  const size_t size = socket_.read_some(boost::asio::buffer(context_->scratch.data(), most), error);
  if (error && error != boost::asio::error::would_block) {
    return OnPeerEnd(error == boost::asio::error::eof);
  }
  if (phase_ == Phase::kLingering) {
    linger_left_ -= std::min<uint64_t>(linger_left_, size);
    if (linger_left_ == 0) return Close();
  } else if (size > 0) {
    in_.append(context_->scratch.data(), size);
    if (phase_ == Phase::kReading && !begun_.has_value()) begun_ = context_->clock->Now();
    Advance();
  }
  WaitReadable();
}

void HttpConnection::OnPeerEnd(bool by_end) {
  peer_ended_ = true;
  // An answer that is complete still goes out.
  const bool answers = phase_ == Phase::kServing &&
                       (ended_ || close_after_ || !context_->options.half_close_cancels);
  if (!by_end || !answers) Close();
}

bool HttpConnection::Flush() {
  if (waits_writable_) return false;
  while (written_ < out_.size()) {
    ErrorCode error;
    written_ += socket_.write_some(
        boost::asio::buffer(out_.data() + written_, out_.size() - written_), error);
    if (!error) {
      since_ = context_->clock->Now();
      continue;
    }
    if (error != boost::asio::error::would_block) {
      Close();
      return false;
    }
    waits_writable_ = true;
    socket_.async_wait(tcp::socket::wait_write, [self = shared_from_this()](const ErrorCode&) {
      self->waits_writable_ = false;
      if (!self->closed_ && self->Flush()) self->Advance();
    });
    return false;
  }
  out_.clear();
  written_ = 0;
  return true;
}

void HttpConnection::Advance() {
  if (advancing_) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  advancing_ = true;
  bool more = true;
  while (more && !closed_) {
    more = phase_ == Phase::kReading ? ReadStep() : phase_ == Phase::kServing && WriteStep();
  }
  advancing_ = false;
  WaitReadable();
}

// ---- A request comes in ----

bool HttpConnection::ReadStep() {
  size_t at = 0;
  while (phase_ == Phase::kReading && !closed_) {
    size_t used = 0;
    const HttpParser::Event event = parser_.Next(absl::string_view(in_).substr(at), &used);
    at += used;
    if (event == HttpParser::Event::kMore) break;
    if (event == HttpParser::Event::kHead) TakeHead();
    if (event == HttpParser::Event::kBody) TakeBody(parser_.body());
    if (event == HttpParser::Event::kEnd) EndRequest();
    if (event == HttpParser::Event::kFault) Refuse(parser_.fault());
  }
  in_.erase(0, at);
  if (in_.empty()) in_ = std::string();  // gives its memory back
  return phase_ == Phase::kServing;
}

void HttpConnection::TakeHead() {
  context_->stats->requests.Add();
  context_->on_requests_open(1);
  exchange_ = std::make_shared<HttpExchange>(
      parser_.head(), peer_, [weak = weak_from_this(), io = &context_->io] {
        boost::asio::post(*io, [weak] {
          const std::shared_ptr<HttpConnection> self = weak.lock();
          if (self != nullptr && !self->closed_) self->Advance();
        });
      });
  body_ = HttpBody(&context_->bodies);
  on_body_ = context_->handlers.on_request(exchange_);
  const HttpHead& head = exchange_->head();
  const uint64_t most = static_cast<uint64_t>(context_->options.max_body_bytes);
  if (exchange_->answered()) {
    if (head.expects_continue || head.content_length > kMaxDropped) AnswerNow();
  } else if (head.content_length > most && !exchange_->streams_body()) {
    RefuseBody(absl::OutOfRangeError("the body is too large"));
  } else if (head.expects_continue) {
    out_.append("HTTP/1.1 100 Continue\r\n\r\n");
    Flush();
  }
}

void HttpConnection::TakeBody(absl::string_view bytes) {
  if (exchange_->answered()) {
    dropped_ += bytes.size();
    if (dropped_ > kMaxDropped) AnswerNow();
    return;
  }
  if (exchange_->streams_body()) {
    begun_ = begun_.value_or(context_->clock->Now()) +
             absl::Seconds(static_cast<double>(bytes.size()) / kSlowestStream);
    return exchange_->TakeBody(bytes);
  }
  const size_t most = static_cast<size_t>(context_->options.max_body_bytes);
  if (bytes.size() > most - body_.text().size()) {
    RefuseBody(absl::OutOfRangeError("the body is too large"));
  } else if (!body_.Append(bytes)) {
    RefuseBody(absl::ResourceExhaustedError("too many large requests come in"));
  }
}

void HttpConnection::EndRequest() {
  phase_ = Phase::kServing;
  since_ = context_->clock->Now();
  const HttpServer::BodyHandler on_body = std::exchange(on_body_, nullptr);
  if (!exchange_->answered()) on_body(std::move(body_));
}

void HttpConnection::RefuseBody(absl::Status why) {
  AnswerNow();
  context_->stats->too_large.Add();
  std::exchange(on_body_, nullptr)(std::move(why));
}

void HttpConnection::Refuse(const HttpFault& fault) {
  CountFault(fault.status);
  AnswerNow();
  if (parser_.in_head()) linger_left_ = kMaxBehindFault;
  if (exchange_ == nullptr) {
    context_->on_requests_open(1);
    exchange_ = std::make_shared<HttpExchange>(HttpHead(), peer_, [] {});
  }
  if (!exchange_->answered()) exchange_->Reply(context_->handlers.on_fault(fault));
}

void HttpConnection::CountFault(int status) {
  HttpServerStats& stats = *context_->stats;
  if (status == 501) {
    stats.unknown_coding.Add();
  } else if (status == 431) {
    stats.too_large.Add();
  } else if (status == 408) {
    stats.late.Add();
  } else {
    stats.malformed.Add();
  }
}

void HttpConnection::AnswerNow() {
  close_after_ = true;
  phase_ = Phase::kServing;
  since_ = context_->clock->Now();
}

// ---- Its answer goes out ----

bool HttpConnection::WriteStep() {
  if (exchange_->gone()) {
    Close();
    return false;
  }
  if (!Flush()) return false;
  if (std::exchange(taken_, false)) exchange_->Written();
  if (closed_) return false;
  if (ended_) {
    Finish();
    return true;
  }
  return TakeOutput();
}

bool HttpConnection::TakeOutput() {
  HttpExchange::Output output = exchange_->Take();
  if (output.head.has_value()) AppendHead(*std::move(output.head), output.stream);
  for (const std::string& piece : output.pieces) AppendPiece(piece);
  const bool chunked = !exchange_->head().http_1_0 && exchange_->head().method != "HEAD";
  if (output.ended && output.stream && chunked) out_.append(kLastChunk);
  taken_ = true;
  ended_ = output.ended;
  if (out_.empty()) exchange_->Written();  // of pieces without bytes
  return !out_.empty() || ended_;
}

void HttpConnection::AppendPiece(absl::string_view piece) {
  if (exchange_->head().method == "HEAD") return;
  if (exchange_->head().http_1_0) {
    out_.append(piece.data(), piece.size());
  } else {
    AppendChunk(piece, &out_);
  }
}

void HttpConnection::AppendHead(HttpReply reply, bool stream) {
  const HttpHead& head = exchange_->head();
  stream_ = stream;
  HttpBodyFraming framing = HttpBodyFraming::kLength;
  if (stream) framing = head.http_1_0 ? HttpBodyFraming::kUntilClose : HttpBodyFraming::kChunked;
  if (!head.keep_alive || peer_ended_ || framing == HttpBodyFraming::kUntilClose ||
      context_->draining.load(std::memory_order_relaxed)) {
    close_after_ = true;
  }
  out_.append(SerializeHead(reply, framing, reply.body.size(), !close_after_,
                            HttpDate(absl::ToUnixSeconds(absl::Now()))));
  if (!stream && head.method != "HEAD") out_.append(reply.body);
}

void HttpConnection::Finish() {
  const std::shared_ptr<HttpExchange> exchange = std::exchange(exchange_, nullptr);
  finished_call_ |= exchange->is_call();
  exchange->StreamBody(nullptr);
  exchange->Complete(true);
  context_->on_requests_open(-1);
  on_body_ = nullptr;
  body_ = HttpBody();
  dropped_ = 0;
  ended_ = false;
  stream_ = false;
  since_ = context_->clock->Now();
  begun_.reset();
  if (close_after_) return Linger();
  phase_ = Phase::kReading;
  if (!in_.empty()) begun_ = since_;
}

// Ends our side, and waits for the peer to end its own. Closing at once would make the system send
// a reset where bytes of the peer's are unread, and that can overtake the answer.
void HttpConnection::Linger() {
  if (peer_ended_) return Close();
  phase_ = Phase::kLingering;
  in_ = std::string();
  ErrorCode error;
  socket_.shutdown(tcp::socket::shutdown_send, error);
}

// ---- Its end ----

void HttpConnection::FillSilence(absl::Duration now) {
  if (exchange_ == nullptr || !exchange_->is_events()) return;
  if (exchange_->BeginIfPlannedBy(now - context_->options.events_head_after)) return Advance();
  const bool silent = stream_ && !ended_ && out_.empty();
  if (!silent || now - since_ < context_->options.events_silence) return;
  AppendPiece(kComment);
  Advance();
}

void HttpConnection::Sweep(absl::Duration now) {
  if (phase_ == Phase::kServing) FillSilence(now);
  if (closed_) return;
  const HttpServerOptions& options = context_->options;
  if (phase_ == Phase::kLingering) {
    if (now - since_ > kLinger) Close();
  } else if (phase_ == Phase::kReading && begun_.has_value()) {
    const absl::Duration bound = parser_.in_head() ? options.head_bound : options.request_bound;
    if (now - *begun_ <= bound) return;
    Refuse({408, "the request did not come whole in time"});
    Advance();
  } else if (phase_ == Phase::kReading) {
    if (now - since_ > options.idle_bound) Close();
  } else if (!out_.empty() && !stream_ && now - since_ > options.write_bound) {
    Close();
  } else if (!waits_readable_ && !peer_ended_) {  // so much was sent ahead that its end is not seen
    pollfd seen = {socket_.native_handle(), POLLRDHUP, 0};
    if (poll(&seen, 1, 0) == 1) OnPeerEnd((seen.revents & (POLLERR | POLLHUP)) == 0);
  }
}

void HttpConnection::Cut() {
  if (exchange_ != nullptr) Close();
}

void HttpConnection::Close() {
  if (std::exchange(closed_, true)) return;
  const std::shared_ptr<HttpConnection> self = shared_from_this();
  const std::shared_ptr<HttpExchange> exchange = std::exchange(exchange_, nullptr);
  on_body_ = nullptr;
  if (exchange != nullptr) exchange->StreamBody(nullptr);
  ErrorCode error;
  socket_.close(error);
  if (exchange != nullptr) {
    exchange->Complete(false);
    context_->on_requests_open(-1);
  }
  context_->on_closed(this);
}

}  // namespace sluice
