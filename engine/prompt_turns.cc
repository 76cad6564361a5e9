#include "engine/prompt_turns.h"

#include <algorithm>
#include <limits>

#include "engine/step_pacer.h"

namespace sluice {

int64_t PromptShare(int64_t prompt_left, int64_t budget_left, int64_t grid) {
  if (prompt_left <= budget_left) return prompt_left;
  return budget_left / grid * grid;
}

const std::vector<PromptTurns::Turn>& PromptTurns::Divide(absl::Span<Call* const> calls,
                                                          Room room) {
  Gather(calls);
  Share* share = nullptr;
  Turn* turn = nullptr;
  while (Next(room, &share, &turn)) Give(share, turn, &room);
  turns_.erase(
      std::remove_if(turns_.begin(), turns_.end(), [](const Turn& one) { return one.length == 0; }),
      turns_.end());
  return turns_;
}

void PromptTurns::Gather(absl::Span<Call* const> calls) {
  turns_.clear();
  double least = shares_.empty() ? 0 : std::numeric_limits<double>::infinity();
  for (auto& [tenant, share] : shares_) {
    least = std::min(least, share.had);
    share.present = false;
    share.by_age.turns.clear();
    share.by_age.next = 0;
  }
  for (Call* call : calls) {
    if (call->state != CallState::kReady || !call->in_prompt()) continue;
    const auto [it, is_new] = shares_.try_emplace(call->request.tenant);
    Share& share = it->second;
    // Whoever comes has neither saved up anything nor owes anything.
    if (is_new) share.had = least;
    share.present = true;
    share.weight = call->request.tenant_weight;
    share.by_age.turns.push_back(turns_.size());
    turns_.push_back({call, call->next_cut() - call->prompt_launched, 0});
  }
  std::erase_if(shares_, [](const auto& entry) { return !entry.second.present; });
  for (auto& [tenant, share] : shares_) {
    share.by_left = share.by_age;
    std::stable_sort(share.by_left.turns.begin(), share.by_left.turns.end(),
                     [this](size_t a, size_t b) {
                       const auto rest = [this](size_t i) {
                         return turns_[i].call->prompt_rows() - turns_[i].call->prompt_launched;
                       };
                       return rest(a) < rest(b);
                     });
  }
}

bool PromptTurns::Next(const Room& room, Share** share, Turn** turn) {
  *share = nullptr;
  for (auto& [tenant, one] : shares_) {
    if (*share != nullptr && one.had >= (*share)->had) continue;
    Turn* const picked = Pick(&one, room);
    if (picked == nullptr) continue;
    *share = &one;
    *turn = picked;
  }
  return *share != nullptr;
}

PromptTurns::Turn* PromptTurns::Pick(Share* share, const Room& room) {
  Turn* const oldest = First(&share->by_age);
  Turn* const shortest = First(&share->by_left);
  if (oldest == nullptr) return nullptr;
  Turn* const first = share->balance <= 0 ? oldest : shortest;
  Turn* const second = first == oldest ? shortest : oldest;
  if (Piece(*first, room) > 0) return first;
  return Piece(*second, room) > 0 ? second : nullptr;
}

PromptTurns::Turn* PromptTurns::First(Queue* queue) {
  for (; queue->next < queue->turns.size(); ++queue->next) {
    Turn& turn = turns_[queue->turns[queue->next]];
    if (turn.length < turn.left) return &turn;
  }
  return nullptr;
}

int64_t PromptTurns::Piece(const Turn& turn, const Room& room) const {
  const int64_t most = HasPromise(*turn.call) ? room.all : std::min(room.all, room.others);
  return PromptShare(turn.left - turn.length, std::min(most, grid_), grid_);
}

void PromptTurns::Give(Share* share, Turn* turn, Room* room) {
  const int64_t piece = Piece(*turn, *room);
  const Turn* const oldest = First(&share->by_age);
  if (oldest != First(&share->by_left)) {
    share->balance += turn == oldest ? piece : -piece;
    share->balance = std::clamp(share->balance, -grid_, grid_);
  }
  share->had += static_cast<double>(piece) / share->weight;
  turn->length += piece;
  room->all -= piece;
  if (!HasPromise(*turn->call)) room->others -= piece;
}

}  // namespace sluice
