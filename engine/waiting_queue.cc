#include "engine/waiting_queue.h"

#include <algorithm>
#include <iterator>
#include <limits>

#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int64_t kMostCountedNewTokens = 1024;  // of one sequence

}  // namespace

int64_t ShareCost(const Request& request) {
  const int64_t new_tokens = std::min<int64_t>(request.stop.max_new_tokens, kMostCountedNewTokens);
  return static_cast<int64_t>(request.prompt.size()) + request.n * new_tokens;
}

void WaitingQueue::Push(Call* call) {
  const auto [it, is_new] = shares_.try_emplace(call->request.tenant);
  if (is_new) {
    it->second = turns_.insert(turns_.end(), Share{call->request.tenant, 1, 0, {}});
  }
  Share& share = *it->second;
  share.weight = call->request.tenant_weight;
  if (turns_.size() == 1 && is_new) share.deficit = share.quantum();
  share.calls.emplace(KeyOf(*call), call);
  ++size_;
}

void WaitingQueue::Erase(const Call& call) { Remove(shares_.at(call.request.tenant), KeyOf(call)); }

Call* WaitingQueue::Front() {
  if (empty()) return nullptr;
  for (size_t i = 0; i < turns_.size(); ++i) {
    if (turns_.front().lacking() <= 0) return turns_.front().calls.begin()->second;
    NextTurn();
  }
  SkipTurns();
  while (turns_.front().lacking() > 0) NextTurn();
  return turns_.front().calls.begin()->second;
}

void WaitingQueue::Pop() {
  const Call* call = Front();
  SLUICE_CHECK(call != nullptr);
  turns_.front().deficit -= ShareCost(call->request);
  Remove(turns_.begin(), KeyOf(*call));
}

void WaitingQueue::Remove(std::list<Share>::iterator share, const Key& key) {
  SLUICE_CHECK(share->calls.erase(key) == 1);
  --size_;
  if (!share->calls.empty()) return;
  // Nothing is saved up by whoever does not wait.
  const bool had_turn = share == turns_.begin();
  shares_.erase(share->tenant);
  turns_.erase(share);
  if (had_turn && !turns_.empty()) turns_.front().deficit += turns_.front().quantum();
}

void WaitingQueue::NextTurn() {
  turns_.splice(turns_.end(), turns_, turns_.begin());
  turns_.front().deficit += turns_.front().quantum();
}

void WaitingQueue::SkipTurns() {
  int64_t rounds = std::numeric_limits<int64_t>::max();
  for (const Share& share : turns_) {
    rounds = std::min(rounds, (share.lacking() + share.quantum() - 1) / share.quantum());
  }
  // The last round is gone through in turn.
  for (Share& share : turns_) share.deficit += std::max<int64_t>(rounds - 1, 0) * share.quantum();
}

}  // namespace sluice
