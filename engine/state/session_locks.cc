#include "engine/state/session_locks.h"

#include <openssl/sha.h>

#include <cstring>
#include <limits>

#include "absl/strings/str_cat.h"
#include "engine/state/directory_claim.h"

namespace sluice {
namespace {

using Mode = Files::ByteLocks::Mode;

// Bytes of `requests` for each session: one for each wish.
constexpr int64_t kWishes = 4;
constexpr int64_t kFirstWish = static_cast<int64_t>(SessionWish::kTurn);

struct Place {
  int64_t owner = 0;    // a number in [0, kSlots)
  int64_t request = 0;  // another, so that sessions that share the one do not share the other
};

// Ids are chosen by clients: with a weaker hash one could aim at another tenant's session.
Place PlaceOf(const SessionLocks::Key& key) {
  const std::string text = absl::StrCat(key.first.size(), ":", key.first, key.second);
  unsigned char digest[SHA256_DIGEST_LENGTH];
  SHA256(reinterpret_cast<const unsigned char*>(text.data()), text.size(), digest);
  uint64_t numbers[2];
  std::memcpy(numbers, digest, sizeof(numbers));
  return {static_cast<int64_t>(numbers[0] % static_cast<uint64_t>(SessionLocks::kSlots)),
          static_cast<int64_t>(numbers[1] % static_cast<uint64_t>(SessionLocks::kSlots))};
}

int64_t RequestByte(const Place& place, int64_t wish) { return place.request * kWishes + wish; }

}  // namespace

absl::StatusOr<std::unique_ptr<SessionLocks>> SessionLocks::Open(Files* files,
                                                                 const std::string& dir,
                                                                 int64_t slots) {
  absl::StatusOr<std::unique_ptr<Files::ByteLocks>> owners =
      files->OpenLocks(absl::StrCat(dir, "/owners"));
  if (!owners.ok()) return owners.status();
  absl::StatusOr<std::unique_ptr<Files::ByteLocks>> requests =
      files->OpenLocks(absl::StrCat(dir, "/requests"));
  if (!requests.ok()) return requests.status();
  return std::unique_ptr<SessionLocks>(
      new SessionLocks(*std::move(owners), *std::move(requests), slots));
}

absl::StatusOr<bool> SessionLocks::Own(const Key& key) {
  const int64_t byte = PlaceOf(key).owner % slots_;
  const auto mine = owned_.find(byte);
  if (mine != owned_.end() && mine->second != key) return false;
  const absl::Status status = owners_->Set(byte, Mode::kExclusive);
  if (absl::IsAlreadyExists(status)) return false;
  if (!status.ok()) return status;
  owned_[byte] = key;
  return true;
}

absl::Status SessionLocks::Mark(const Key& key, bool unwritten) {
  return owners_->Set(PlaceOf(key).owner % slots_, unwritten ? Mode::kShared : Mode::kExclusive);
}

void SessionLocks::Release(const Key& key) {
  const int64_t byte = PlaceOf(key).owner % slots_;
  const auto mine = owned_.find(byte);
  if (mine == owned_.end() || mine->second != key) return;
  owned_.erase(mine);
  owners_->Set(byte, Mode::kNone).IgnoreError();
}

absl::StatusOr<SessionHolder> SessionLocks::HolderOf(const Key& key) {
  const int64_t byte = PlaceOf(key).owner % slots_;
  const auto mine = owned_.find(byte);
  if (mine != owned_.end()) {
    return mine->second == key ? SessionHolder::kNobody : SessionHolder::kUnwritten;
  }
  const absl::StatusOr<Mode> held = owners_->HeldByOthers(byte, 1);
  if (!held.ok()) return held.status();
  if (*held == Mode::kNone) return SessionHolder::kNobody;
  return *held == Mode::kExclusive ? SessionHolder::kCall : SessionHolder::kUnwritten;
}

absl::Status SessionLocks::Ask(const Key& key, SessionWish wish) {
  const auto it = asked_.find(key);
  const SessionWish before = it == asked_.end() ? SessionWish::kNone : it->second;
  if (before == wish) return absl::OkStatus();
  const Place place = PlaceOf(key);
  if (before != SessionWish::kNone) {
    requests_->Set(RequestByte(place, static_cast<int64_t>(before)), Mode::kNone).IgnoreError();
    asked_.erase(it);
  }
  if (wish == SessionWish::kNone) return absl::OkStatus();
  const absl::Status status =
      requests_->Set(RequestByte(place, static_cast<int64_t>(wish)), Mode::kShared);
  if (status.ok()) asked_[key] = wish;
  return status;
}

absl::StatusOr<SessionWish> SessionLocks::AskedOf(const Key& key) {
  const Place place = PlaceOf(key);
  for (int64_t wish = static_cast<int64_t>(SessionWish::kDelete); wish >= kFirstWish; --wish) {
    const absl::StatusOr<Mode> held = requests_->HeldByOthers(RequestByte(place, wish), 1);
    if (!held.ok()) return held.status();
    if (*held != Mode::kNone) return static_cast<SessionWish>(wish);
  }
  return SessionWish::kNone;
}

absl::StatusOr<bool> SessionLocks::AnybodyAsks() {
  const absl::StatusOr<Mode> held = requests_->HeldByOthers(0, std::numeric_limits<int64_t>::max());
  if (!held.ok()) return held.status();
  return *held != Mode::kNone;
}

}  // namespace sluice
