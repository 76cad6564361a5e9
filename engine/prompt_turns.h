// Divides the room that a step has for prompts among the calls whose prompts are not done.
// Internal to engine/.
//
// Tenants share it by weight, as fair queuing does: the next piece goes to the tenant that has had
// the fewest tokens for its weight. Within a tenant, every other piece goes to the oldest prompt
// and the others to the one with the fewest tokens left. A short prompt so waits for a piece of a
// long one, never for all of it, and the oldest prompt gets half of its tenant's room whoever
// comes. Prompts of equal length are computed one after another.
//
// A piece is one chunk of the grid, or the rest of a prompt, so that what is computed never depends
// on who else has prompts.
#ifndef SLUICE_ENGINE_PROMPT_TURNS_H_
#define SLUICE_ENGINE_PROMPT_TURNS_H_

#include <cstddef>
#include <cstdint>
#include <map>
#include <string>
#include <vector>

#include "absl/types/span.h"
#include "engine/call.h"

namespace sluice {

// Tokens of a prompt to compute next, given how many are left of it and of the step's budget: all
// that is left if it fits, else a multiple of `grid` (0: nothing fits). So a prompt is only ever
// cut on the grid of its call.
int64_t PromptShare(int64_t prompt_left, int64_t budget_left, int64_t grid);

class PromptTurns {
 public:
  // Tokens that a step can compute.
  struct Room {
    int64_t all = 0;
    int64_t others = 0;  // of them, tokens of calls whose tenant was promised no inter-token time
  };
  struct Turn {
    Call* call = nullptr;
    int64_t left = 0;    // tokens up to where the step must not go beyond
    int64_t length = 0;  // tokens to compute in this step
  };

  explicit PromptTurns(int64_t grid) : grid_(grid) {}

  // Decides which calls are in the step, and with how many tokens, in the order of `calls`, which
  // is by age. The caller must compute each result: it is counted as its tenant's share.
  const std::vector<Turn>& Divide(absl::Span<Call* const> calls, Room room);

 private:
  // Indices of turns_, of which those before `next` are done.
  struct Queue {
    std::vector<size_t> turns;
    size_t next = 0;
  };
  // A tenant with prompts; forgotten once it has none.
  struct Share {
    double had = 0;       // tokens for each unit of its weight
    int64_t balance = 0;  // tokens that the oldest prompt had more than the shortest
    Queue by_age;
    Queue by_left;
    bool present = false;  // in this step
    int32_t weight = 1;
  };

  void Gather(absl::Span<Call* const> calls);
  // The share whose turn it is and the call that it goes to; false when nothing fits any more.
  bool Next(const Room& room, Share** share, Turn** turn);
  Turn* Pick(Share* share, const Room& room);
  Turn* First(Queue* queue);
  int64_t Piece(const Turn& turn, const Room& room) const;
  void Give(Share* share, Turn* turn, Room* room);

  const int64_t grid_;
  std::map<std::string, Share> shares_;
  std::vector<Turn> turns_;
};

}  // namespace sluice

#endif  // SLUICE_ENGINE_PROMPT_TURNS_H_
