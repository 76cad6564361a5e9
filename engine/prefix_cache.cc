#include "engine/prefix_cache.h"

#include <algorithm>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

constexpr int64_t kFewestChunks = 4;   // of a state kept after a power of two of chunks
constexpr int64_t kSmallestShare = 8;  // of the prompt: one in so many
constexpr int64_t kBytesOfSlot = 16;   // of the hash table, for each chunk

}  // namespace

PrefixCache::PrefixCache(StateCache* states, int64_t grid, int64_t bytes, std::string numerics_id,
                         EngineStats* stats)
    : states_(states),
      grid_(grid),
      budget_(bytes),
      node_bytes_(static_cast<int64_t>(sizeof(PrefixNode)) +
                  grid * static_cast<int64_t>(sizeof(int32_t)) + kBytesOfSlot),
      numerics_id_(std::move(numerics_id)),
      stats_(stats) {}

PrefixCache::~PrefixCache() = default;

int64_t PrefixCache::Limit(int64_t rows) const {
  return budget_ == 0 || rows == 0 ? 0 : (rows - 1) / grid_ * grid_;
}

PrefixMatch PrefixCache::Find(const std::string& tenant, absl::Span<const int32_t> prompt,
                              int64_t limit,
                              absl::FunctionRef<bool(uint64_t, int64_t)> will_compute) {
  PrefixMatch match;
  const auto root = roots_.find(tenant);
  if (root == roots_.end()) return match;
  PrefixNode* hit = nullptr;
  PrefixNode* node = root->second.get();
  while (node->end < limit && (node = Child(node, prompt)) != nullptr) {
    if (node->state != nullptr) hit = node;
    if (node->leader != 0 && will_compute(node->leader, node->end)) {
      match.leader = node->leader;
      match.leader_tokens = node->end;
    }
  }
  if (hit != nullptr) {
    match.tokens = hit->end;
    match.state = hit->state;
    kept_.splice(kept_.end(), kept_, hit->place);
    states_->Touch(hit->state.get());
  }
  if (match.leader_tokens <= match.tokens) match.leader = 0;
  return match;
}

PrefixPlan PrefixCache::Begin(const std::string& tenant, absl::Span<const int32_t> prompt,
                              int64_t limit, int64_t from, uint64_t leader) {
  PrefixPlan plan;
  const int64_t most = limit / grid_ * node_bytes_ + states_->BytesAt(limit);
  if (limit <= from || most > budget_) return plan;
  std::unique_ptr<PrefixNode>& root = roots_[tenant];
  if (root == nullptr) root = std::make_unique<PrefixNode>();
  PrefixNode* node = root.get();
  int64_t known = 0;
  while (node->end < limit) {
    PrefixNode* child = Child(node, prompt);
    if (child != nullptr) known = child->end;
    node = child != nullptr ? child : AddChild(node, prompt);
    if (leader != 0 && node->end > from) node->leader = leader;
  }
  plan.end = node;
  ++node->plans;
  AddCut(&plan, limit);
  if (known > from) AddCut(&plan, known);
  for (int64_t power = kFewestChunks * grid_; power < limit; power *= 2) {
    if (power > from && power * kSmallestShare >= limit) AddCut(&plan, power);
  }
  if (!MakeRoom(0)) End(&plan);
  return plan;
}

void PrefixCache::AddCut(PrefixPlan* plan, int64_t tokens) {
  if (plan->end == nullptr) return;
  const auto place = std::lower_bound(plan->cuts.begin(), plan->cuts.end(), tokens);
  if (place == plan->cuts.end() || *place != tokens) plan->cuts.insert(place, tokens);
}

void PrefixCache::Keep(PrefixPlan* plan, int32_t slot) {
  const int64_t tokens = plan->cuts.front();
  plan->cuts.erase(plan->cuts.begin());
  PrefixNode* node = plan->end;
  while (node->end > tokens) node = node->parent;
  SLUICE_CHECK(node->end == tokens);
  Room room;
  const int64_t bytes = states_->BytesAt(tokens);
  if (node->state == nullptr && MakeRoom(bytes) && states_->Reserve(bytes, 0, &room).ok()) {
    StateInfo info;
    info.position = tokens + 1;  // whatever token comes next
    info.numerics_id = numerics_id_;
    node->state = states_->AdoptCopy(std::move(info), slot, &room, [this, node] { Drop(node); });
    node->place = kept_.insert(kept_.end(), node);
    bytes_ += bytes;
  }
  if (plan->cuts.empty()) End(plan);
}

void PrefixCache::End(PrefixPlan* plan) {
  plan->cuts.clear();
  PrefixNode* node = std::exchange(plan->end, nullptr);
  if (node == nullptr) return;
  --node->plans;
  Prune(node);
}

void PrefixCache::Distrust(const std::string& tenant, absl::Span<const int32_t> prompt) {
  const auto root = roots_.find(tenant);
  if (root == roots_.end()) return;
  std::vector<PrefixNode*> kept;
  const auto size = static_cast<int64_t>(prompt.size());
  PrefixNode* node = root->second.get();
  while (node->end + grid_ <= size && (node = Child(node, prompt)) != nullptr) {
    if (node->state != nullptr) kept.push_back(node);
  }
  // The longest first: what is left of its path goes with it.
  for (auto it = kept.rbegin(); it != kept.rend(); ++it) Drop(*it);
}

PrefixNode* PrefixCache::Child(const PrefixNode* node, absl::Span<const int32_t> prompt) const {
  const auto it = nodes_.find(Key{node, prompt.subspan(node->end, grid_)});
  return it == nodes_.end() ? nullptr : it->get();
}

PrefixNode* PrefixCache::AddChild(PrefixNode* node, absl::Span<const int32_t> prompt) {
  auto child = std::make_unique<PrefixNode>();
  const absl::Span<const int32_t> tokens = prompt.subspan(node->end, grid_);
  child->parent = node;
  child->tokens.assign(tokens.begin(), tokens.end());
  child->end = node->end + grid_;
  ++node->children;
  bytes_ += node_bytes_;
  return nodes_.insert(std::move(child)).first->get();
}

bool PrefixCache::MakeRoom(int64_t bytes) {
  while (bytes_ + bytes > budget_) {
    if (kept_.empty()) return false;
    Drop(kept_.front());
  }
  return true;
}

void PrefixCache::Drop(PrefixNode* node) {
  stats_->prefix_evictions.Add();
  bytes_ -= states_->BytesAt(node->end);
  kept_.erase(node->place);
  const StatePtr gone = std::move(node->state);
  gone->drop = nullptr;  // a call may still hold it
  Prune(node);
}

void PrefixCache::Prune(PrefixNode* node) {
  while (node->parent != nullptr && node->state == nullptr && node->children == 0 &&
         node->plans == 0) {
    PrefixNode* parent = node->parent;
    nodes_.erase(nodes_.find(Key{parent, node->tokens}));
    --parent->children;
    bytes_ -= node_bytes_;
    node = parent;
  }
}

void PrefixCache::SetGauges() {
  stats_->prefix_entries.Set(static_cast<int64_t>(kept_.size()));
  stats_->prefix_bytes.Set(bytes_);
}

}  // namespace sluice
