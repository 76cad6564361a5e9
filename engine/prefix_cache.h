// States that prompts begin with: what one call has computed, the next one of the same tenant need
// not. Internal to engine/.
//
// A state is kept after whole chunks of the backend's grid, counted from the beginning of a call
// that starts empty, so what is computed from it is bit for bit what is computed without it.
// Prompts are kept as chunks of tokens, a tree for each tenant; they are compared token by token,
// and no tenant's tree is ever looked at for another. All of it belongs to one engine, that is to
// one model and one numerics_id.
//
// Kept are the states after the last whole chunk of a prompt, where the prompt parts from an
// earlier one, and after a power of two of chunks. The powers below four chunks or an eighth of the
// prompt are left out: each kept state costs the prompt a cut and the cache a place, and such a
// prefix saves little (where prompts part, it is kept the second time).
//
// A prefix that a call is about to compute is known too: calls that begin the same can wait for it.
#ifndef SLUICE_ENGINE_PREFIX_CACHE_H_
#define SLUICE_ENGINE_PREFIX_CACHE_H_

#include <cstdint>
#include <list>
#include <memory>
#include <string>
#include <vector>

#include "absl/container/flat_hash_map.h"
#include "absl/container/flat_hash_set.h"
#include "absl/functional/function_ref.h"
#include "absl/hash/hash.h"
#include "absl/types/span.h"
#include "engine/state_cache.h"
#include "engine/stats.h"

namespace sluice {

// One chunk of tokens, behind those of its parents.
struct PrefixNode {
  PrefixNode* parent = nullptr;  // null: a tenant's root, which has no tokens
  std::vector<int32_t> tokens;
  int64_t end = 0;  // tokens from the beginning to here
  int32_t children = 0;
  int32_t plans = 0;                       // that end here
  uint64_t leader = 0;                     // the call that computes this chunk, or did; 0: none
  StatePtr state;                          // after `end` tokens; null: not kept
  std::list<PrefixNode*>::iterator place;  // of a kept one
};

// The states that a call adds to the cache while it computes its prompt.
struct PrefixPlan {
  std::vector<int64_t> cuts;  // tokens after which the state is to be kept, ascending
  PrefixNode* end = nullptr;  // keeps the prompt's chunks; null: nothing to add
};

struct PrefixMatch {
  int64_t tokens = 0;  // of the prompt, whose state is there
  StatePtr state;      // null: none
  // A longer prefix, which the call `leader` is about to compute. 0: there is none.
  uint64_t leader = 0;
  int64_t leader_tokens = 0;
};

class PrefixCache {
 public:
  // `bytes` bounds states and tokens; 0: nothing is kept. All pointers outlive the cache.
  PrefixCache(StateCache* states, int64_t grid, int64_t bytes, std::string numerics_id,
              EngineStats* stats);
  ~PrefixCache();

  // The longest prefix worth looking for of a prompt of which `rows` tokens are to be computed: one
  // is left, so that there is something to go on from. 0: nothing.
  int64_t Limit(int64_t rows) const;

  // The longest prefix of `prompt`, of at most `limit` tokens. `will_compute` says whether a call
  // will get to compute a prompt's first so many tokens.
  PrefixMatch Find(const std::string& tenant, absl::Span<const int32_t> prompt, int64_t limit,
                   absl::FunctionRef<bool(uint64_t leader, int64_t tokens)> will_compute);
  // A call will compute `prompt` from its token `from` on. Others may wait for it, if `leader` is
  // its id (0: they may not). The plan goes to End before the cache does.
  PrefixPlan Begin(const std::string& tenant, absl::Span<const int32_t> prompt, int64_t limit,
                   int64_t from, uint64_t leader);
  // Somebody waits for the state after `tokens`, which the plan's call has yet to compute.
  static void AddCut(PrefixPlan* plan, int64_t tokens);
  // Keeps a copy of the state in `slot`, which is the one after the plan's first cut, unless there
  // is no room for it.
  void Keep(PrefixPlan* plan, int32_t slot);
  // The call adds nothing more. Again: does nothing.
  void End(PrefixPlan* plan);
  // Lets go of every state that `prompt` begins with: a row behind one of them was not finite.
  void Distrust(const std::string& tenant, absl::Span<const int32_t> prompt);

  void SetGauges();

 private:
  struct Key {
    const PrefixNode* parent;
    absl::Span<const int32_t> tokens;
  };
  static Key KeyOf(const std::unique_ptr<PrefixNode>& node) { return {node->parent, node->tokens}; }
  static const Key& KeyOf(const Key& key) { return key; }
  struct Hash {
    using is_transparent = void;
    template <typename T>
    size_t operator()(const T& node) const {
      const Key key = KeyOf(node);
      return absl::HashOf(key.parent, key.tokens);
    }
  };
  struct Equal {
    using is_transparent = void;
    template <typename A, typename B>
    bool operator()(const A& a, const B& b) const {
      const Key x = KeyOf(a), y = KeyOf(b);
      return x.parent == y.parent && x.tokens == y.tokens;
    }
  };

  PrefixNode* Child(const PrefixNode* node, absl::Span<const int32_t> prompt) const;
  PrefixNode* AddChild(PrefixNode* node, absl::Span<const int32_t> prompt);
  bool MakeRoom(int64_t bytes);
  void Drop(PrefixNode* node);
  // Chunks that lead nowhere go.
  void Prune(PrefixNode* node);

  StateCache* const states_;
  const int64_t grid_;
  const int64_t budget_;
  const int64_t node_bytes_;
  const std::string numerics_id_;
  EngineStats* const stats_;
  int64_t bytes_ = 0;
  absl::flat_hash_map<std::string, std::unique_ptr<PrefixNode>> roots_;  // of tenants, for good
  absl::flat_hash_set<std::unique_ptr<PrefixNode>, Hash, Equal> nodes_;
  std::list<PrefixNode*> kept_;  // the least recently used first
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_PREFIX_CACHE_H_
