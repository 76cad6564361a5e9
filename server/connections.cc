#include "server/connections.h"

#include <algorithm>
#include <optional>
#include <utility>

namespace sluice {
namespace {

// A newcomer has this long for its first call while there is room at all: as long as gRPC gives a
// handshake.
constexpr absl::Duration kFirstCallGrace = absl::Seconds(5);
// A flood of a gigabyte a second gets that far beyond its bound.
constexpr absl::Duration kLookAtNewcomers = absl::Milliseconds(20);
constexpr absl::Duration kLookAtEverybody = absl::Seconds(1);
// A peer sends window updates and acknowledgements of pings because it reads: at most one byte for
// this many acknowledged bytes.
constexpr int64_t kAckedShare = 4;

}  // namespace

bool Connections::MakeRoomFor(const PeerKey& peer, absl::Duration now) {
  MutexLock lock(&mutex_);
  const int64_t keep = bounds_.max_connections - bounds_.max_connections / 4;
  if (size() < keep && !PeerFull(peer)) return true;
  ForgetClosed();
  if (PeerFull(peer)) {
    stats_.shed_peer.Add();
    return false;
  }
  if (bounds_.calls_are_reported) {
    CloseIdle(keep - 1, now, kFirstCallGrace);
    CloseIdle(bounds_.max_connections - 1, now, absl::ZeroDuration());
  }
  if (Full()) {
    stats_.shed_connections.Add();
    return false;
  }
  return true;
}

void Connections::Add(int fd, const PeerKey& peer, absl::Duration now) {
  auto use = std::make_shared<ConnectionUse>();
  MutexLock lock(&mutex_);
  uses_[peer] = use;
  all_.push_back({fd, CookieOf(fd).value_or(0), peer, now, std::move(use)});
}

std::shared_ptr<ConnectionUse> Connections::BeginCall(const PeerKey& peer) {
  MutexLock lock(&mutex_);
  const auto found = uses_.find(peer);
  if (found == uses_.end()) return nullptr;
  found->second->BeginCall(bounds_.max_call_bytes);
  return found->second;
}

absl::Duration Connections::Look(absl::Duration now) {
  if (!bounds_.calls_are_reported) return absl::InfiniteDuration();
  MutexLock lock(&mutex_);
  const bool everybody = now - everybody_at_ >= kLookAtEverybody;
  if (everybody) {
    everybody_at_ = now;
    ForgetClosed();
    CloseIdle(bounds_.max_connections - bounds_.max_connections / 4, now, kFirstCallGrace);
  }
  if (bounds_.max_unclaimed_bytes > 0) CloseFloods(everybody);
  if (all_.empty()) return absl::InfiniteDuration();
  const bool newcomers = std::any_of(all_.begin(), all_.end(), [](const Connection& connection) {
    return !connection.use->finished_a_call();
  });
  return newcomers ? kLookAtNewcomers : kLookAtEverybody;
}

int64_t Connections::open() {
  MutexLock lock(&mutex_);
  ForgetClosed();
  return size();
}

void Connections::CutAll() {
  MutexLock lock(&mutex_);
  for (const Connection& connection : all_) ShutDown(connection.fd, connection.cookie);
}

bool Connections::PeerFull(const PeerKey& peer) const {
  if (bounds_.max_connections_per_peer == 0) return false;
  const auto from_there = [&](const Connection& connection) {
    return connection.peer.ip == peer.ip;
  };
  return std::count_if(all_.begin(), all_.end(), from_there) >= bounds_.max_connections_per_peer;
}

void Connections::ForgetClosed() {
  const auto closed = [this](const Connection& connection) SLUICE_REQUIRES(mutex_) {
    if (CookieOf(connection.fd) == connection.cookie) return false;
    Erase(connection);
    return true;
  };
  all_.erase(std::remove_if(all_.begin(), all_.end(), closed), all_.end());
}

void Connections::CloseIdle(int64_t wanted, absl::Duration now, absl::Duration grace) {
  int64_t surplus = size() - wanted;
  if (surplus <= 0) return;
  const auto idle = [&](const Connection& connection) {
    const bool goes = surplus > 0 && now - connection.since >= grace &&
                      !connection.use->finished_a_call() && !connection.use->has_call();
    surplus -= goes;
    return goes;
  };
  CloseIf(idle, &stats_.evicted_no_call);
}

void Connections::CloseFloods(bool everybody) {
  const auto floods = [&](const Connection& connection) {
    return (everybody || !connection.use->finished_a_call()) && SendsTooMuch(connection);
  };
  CloseIf(floods, &stats_.evicted_unclaimed);
}

bool Connections::SendsTooMuch(const Connection& connection) const {
  const std::optional<TcpBytes> bytes = TcpBytesOf(connection.fd);
  if (!bytes.has_value()) return false;
  const int64_t unclaimed =
      bytes->received - bytes->acked / kAckedShare - connection.use->claimed_bytes();
  return unclaimed > bounds_.max_unclaimed_bytes && CookieOf(connection.fd) == connection.cookie;
}

template <typename Predicate>
void Connections::CloseIf(const Predicate& predicate, Counter* counter) {
  const auto close = [&](const Connection& connection) SLUICE_REQUIRES(mutex_) {
    if (!predicate(connection)) return false;
    ShutDown(connection.fd, connection.cookie);
    counter->Add();
    Erase(connection);
    return true;
  };
  all_.erase(std::remove_if(all_.begin(), all_.end(), close), all_.end());
}

// The same peer may be there again, on a newer connection.
void Connections::Erase(const Connection& connection) {
  const auto found = uses_.find(connection.peer);
  if (found != uses_.end() && found->second == connection.use) uses_.erase(found);
}

}  // namespace sluice
