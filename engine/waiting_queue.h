// Requests that wait for slots, and whose turn it is: pure decisions, without device, clock or
// text.
#ifndef SLUICE_ENGINE_WAITING_QUEUE_H_
#define SLUICE_ENGINE_WAITING_QUEUE_H_

#include <cstddef>
#include <cstdint>
#include <list>
#include <map>
#include <string>
#include <utility>

#include "engine/call.h"

namespace sluice {

// The cost of a request in its tenant's share: the tokens of its prompt, and those it may generate.
// The latter are bounded, so that requests that leave the limit open are not punished with it.
int64_t ShareCost(const Request& request);

// Requests without slots. Tenants take turns, by deficit round robin: a tenant's turn is worth
// kQuantum tokens for each unit of its weight, and what it does not use is kept for its next turn
// while it waits: a turn is shorter than most requests, so whoever comes waits for few of others'.
// Within a tenant higher priority goes first, then the older request. With one tenant that is all
// there is.
class WaitingQueue {
 public:
  static constexpr int64_t kQuantum = 64;

  void Push(Call* call);
  // `call` leaves without having been served.
  void Erase(const Call& call);
  // The next call, or null; it stays the same until something changes.
  Call* Front();
  // Front leaves, and is counted against its tenant.
  void Pop();
  size_t size() const { return size_; }
  bool empty() const { return size_ == 0; }

 private:
  using Key = std::pair<int32_t, RequestId>;
  struct Share {  // of a tenant that waits
    std::string tenant;
    int32_t weight = 1;
    int64_t deficit = 0;
    std::map<Key, Call*> calls;

    int64_t quantum() const { return kQuantum * weight; }
    int64_t lacking() const { return ShareCost(calls.begin()->second->request) - deficit; }
  };
  static Key KeyOf(const Call& call) { return {-call.request.priority, call.id}; }

  void Remove(std::list<Share>::iterator share, const Key& key);
  void NextTurn();
  // Gives everybody the turns that pass before the first tenant can be served.
  void SkipTurns();

  std::list<Share> turns_;  // whose turn it is, then who follows
  std::map<std::string, std::list<Share>::iterator> shares_;
  size_t size_ = 0;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_WAITING_QUEUE_H_
