// One request and its answer: the seam between the daemon's threads and the server's one.
//
// Whoever has something to send leaves it here and wakes the connection, which takes it on the
// server's thread. A piece of a stream is done when the socket has taken all of it: nothing piles
// up in between.
#ifndef SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_
#define SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "server/core/mutex.h"
#include "server/http/http_message.h"

namespace sluice {

class HttpExchange : public std::enable_shared_from_this<HttpExchange> {
 public:
  // Called once: true when the socket has the bytes, false when nobody will get them.
  using Done = std::function<void(bool ok)>;

  // `wake` has Take called soon, on the server's thread; it is called from any, and never waits.
  // `peer`: the client's address as gRPC names it, without the port.
  HttpExchange(HttpHead head, std::string peer, std::function<void()> wake)
      : head_(std::move(head)), peer_(std::move(peer)), wake_(std::move(wake)) {}

  const HttpHead& head() const { return head_; }
  const std::string& peer() const { return peer_; }

  // ---- The server's thread, while the head is handled ----

  // The client may call: its connection is kept where strangers' are closed for want of room.
  void CountAsCall() { call_ = true; }
  bool is_call() const { return call_; }
  // Adds a field to the answer, whatever that will be. Also later, by whoever makes the answer.
  void AddHeader(std::string name, std::string value) {
    common_headers_.emplace_back(std::move(name), std::move(value));
  }
  // Has the body go to `take` as it comes, on the server's thread, instead of being gathered. No
  // bound holds for its size; whoever takes it answers when it is too much.
  void StreamBody(std::function<void(absl::string_view)> take) { take_body_ = std::move(take); }
  bool streams_body() const { return take_body_ != nullptr; }
  void TakeBody(absl::string_view bytes) { take_body_(bytes); }

  // ---- Any thread; none of it waits. Calls `done`s and `on_gone` with no lock held. ----

  // `on_gone` is called once the client has left, or now if it has. Once, before the answer.
  void set_on_gone(std::function<void()> on_gone);
  // The answer, whole.
  void Reply(HttpReply reply);
  // Or in pieces: Start, with the headers, then Send any number of times, then End.
  void Start(HttpReply head);
  void Send(std::string bytes, Done done);
  void End();
  // The answer will be a stream of server-sent events with this head, unless ReplyInstead comes
  // before it begins. It begins with BeginEvents, or when the client has waited for its head since
  // `now` for long; from then on the connection fills silence with comments. Once.
  void PlanEvents(HttpReply head, absl::Duration now);
  void BeginEvents();
  // Gives a whole answer in the planned stream's place. False: it has begun.
  bool ReplyInstead(HttpReply reply);
  // Gives up on the client: every piece on its way is done, without success, and the connection
  // ends.
  void Cut();

  // ---- The connection, on the server's thread ----

  // All there is to send since the last Take.
  struct Output {
    std::optional<HttpReply> head{};  // with the body, if it is no stream
    std::vector<std::string> pieces{};
    bool stream = false;
    bool ended = false;  // nothing follows
  };
  Output Take();
  // Begins a planned stream whose client has waited since `since` or longer. True if it did.
  bool BeginIfPlannedBy(absl::Duration since);
  // The answer is a stream of events, planned or begun.
  bool is_events();
  // There is an answer, whole or begun.
  bool answered();
  // Nobody waits for the answer any more: the connection is to end.
  bool gone();
  // The socket has all that was taken.
  void Written();
  // The connection is through with the request. `ok`: the whole answer went out.
  void Complete(bool ok);

 private:
  // Every piece on its way, which will not arrive.
  std::vector<Done> TakeUndone() SLUICE_REQUIRES(mutex_);
  // True if the connection must be woken, because it has not been since the last Take.
  bool NeedsWake() SLUICE_REQUIRES(mutex_) { return !std::exchange(woken_, true); }
  void Answer(HttpReply reply, bool streams);
  void SetAnswer(HttpReply reply, bool streams) SLUICE_REQUIRES(mutex_);
  void Abandon();

  const HttpHead head_;
  const std::string peer_;
  const std::function<void()> wake_;
  bool call_ = false;
  std::vector<std::pair<std::string, std::string>> common_headers_;
  std::function<void(absl::string_view)> take_body_;  // null: the body is gathered

  Mutex mutex_;
  bool woken_ SLUICE_GUARDED_BY(mutex_) = false;
  bool gone_ SLUICE_GUARDED_BY(mutex_) = false;
  std::function<void()> on_gone_ SLUICE_GUARDED_BY(mutex_);
  bool answered_ SLUICE_GUARDED_BY(mutex_) = false;
  std::optional<HttpReply> planned_ SLUICE_GUARDED_BY(mutex_);  // head of events, until it begins
  absl::Duration planned_at_ SLUICE_GUARDED_BY(mutex_);
  bool events_ SLUICE_GUARDED_BY(mutex_) = false;
  std::optional<HttpReply> reply_ SLUICE_GUARDED_BY(mutex_);  // until taken
  bool streams_ SLUICE_GUARDED_BY(mutex_) = false;
  bool ended_ SLUICE_GUARDED_BY(mutex_) = false;
  std::vector<std::string> pieces_ SLUICE_GUARDED_BY(mutex_);
  std::vector<Done> waiting_ SLUICE_GUARDED_BY(mutex_);  // of pieces_
  std::vector<Done> taken_ SLUICE_GUARDED_BY(mutex_);    // of pieces that the connection has
};

}  // namespace sluice

#endif  // SLUICE_SERVER_HTTP_HTTP_EXCHANGE_H_
