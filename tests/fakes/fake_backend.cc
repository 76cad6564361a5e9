#include "tests/fakes/fake_backend.h"

#include <algorithm>
#include <cstring>
#include <utility>

#include "kernels/check.h"

namespace sluice {
namespace {

uint64_t Mix64(uint64_t x) {  // the finaliser of splitmix64
  x += 0x9e3779b97f4a7c15u;
  x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9u;
  x = (x ^ (x >> 27)) * 0x94d049bb133111ebu;
  return x ^ (x >> 31);
}

uint64_t HashNext(uint64_t hash, int32_t token) {
  return Mix64(hash ^ (static_cast<uint64_t>(token) + 1));
}

int32_t Draw(uint64_t hash, int64_t vocab, uint64_t seed, uint32_t sequence, uint64_t position) {
  const uint64_t key = Mix64(seed ^ Mix64(sequence ^ Mix64(position)));
  return static_cast<int32_t>(Mix64(hash ^ key) % static_cast<uint64_t>(vocab));
}

float LogprobOf(uint64_t hash, int32_t token) {
  return -static_cast<float>(Mix64(hash + static_cast<uint64_t>(token)) % 1000) / 100.0f;
}

}  // namespace

FakeBackend::FakeBackend(const Options& options) : rng_(options.seed) {
  info_.device = "fake";
  info_.numerics_id = "fake-1";
  info_.prompt_grid = options.grid;
  info_.steps_in_flight = options.steps_in_flight;
}

uint64_t FakeBackend::HashOf(const std::vector<int32_t>& tokens) {
  uint64_t hash = 0;
  for (int32_t token : tokens) hash = HashNext(hash, token);
  return hash;
}

int32_t FakeBackend::NextToken(const std::vector<int32_t>& tokens, int64_t vocab, uint64_t seed,
                               uint32_t sequence, uint64_t position) {
  return Draw(HashOf(tokens), vocab, seed, sequence, position);
}

float FakeBackend::Logprob(const std::vector<int32_t>& tokens, int32_t next) {
  return LogprobOf(HashOf(tokens), next);
}

absl::Status FakeBackend::AllocateStates(const ModelSpec& spec, int32_t slots, int32_t,
                                         int32_t max_rows) {
  vocab_ = spec.vocab;
  SLUICE_CHECK(MakeStateTable(spec).bytes() >= static_cast<int64_t>(sizeof(State)));
  max_rows_ = max_rows;
  slots_.resize(slots);
  return absl::OkStatus();
}

void FakeBackend::Consume(Slot* slot, int32_t token) {
  slot->state.hash = HashNext(slot->state.hash, token);
  ++slot->state.tokens;
  if (token == poison_token_) slot->state.poisoned = 1;
}

Ticket FakeBackend::EndStep() {
  const StepRows& rows = *rows_;
  ++steps_;
  std::vector<State> after;  // the state behind each row
  const auto record = [&](const Slot& slot) { after.push_back(slot.state); };
  for (int32_t i = 0; i < rows.num_decode; ++i) {
    Slot& slot = slots_.at(rows.decode[i].slot);
    const int32_t token = rows.decode[i].token;
    SLUICE_CHECK(rows.decode[i].position == static_cast<int64_t>(slot.state.tokens));
    SLUICE_CHECK(token != kLastSampled || slot.last_sampled >= 0);
    Consume(&slot, token == kLastSampled ? slot.last_sampled : token);
    record(slot);
  }
  for (int32_t i = 0; i < rows.num_prompts; ++i) {
    const PromptSegment& segment = rows.prompts[i];
    SLUICE_CHECK(segment.start % info_.prompt_grid == 0 && segment.length > 0);
    Slot& slot = slots_.at(segment.slot);
    SLUICE_CHECK(segment.position == static_cast<int64_t>(slot.state.tokens));
    const int64_t call_begin = static_cast<int64_t>(slot.state.tokens) - segment.start;
    if (segment.start == 0 || slot.call_begin < 0) slot.call_begin = call_begin;
    SLUICE_CHECK(call_begin >= 0 && slot.call_begin == call_begin);
    for (int32_t t = 0; t < segment.length; ++t) {
      Consume(&slot, segment.tokens[t]);
      record(slot);
    }
  }
  most_rows_ = std::max<int64_t>(most_rows_, after.size());
  SLUICE_CHECK(after.size() <= static_cast<size_t>(max_rows_));
  SLUICE_CHECK(static_cast<size_t>(rows.num_logits) <= max_rows_ + slots_.size());

  std::vector<LogitResult> results(rows.num_logits);
  for (int32_t i = 0; i < rows.num_logits; ++i) {
    const LogitRow& row = rows.logits[i];
    LogitResult& result = results[i];
    const uint64_t hash = after.at(row.row).hash;
    result.finite = after.at(row.row).poisoned == 0;
    result.token = row.target;
    if (row.target == kNoTarget) {
      SLUICE_CHECK(row.sampling != nullptr);
      result.token = Draw(hash, vocab_, row.seed, row.sequence, row.position);
      while (std::count(row.banned, row.banned + row.num_banned, result.token) > 0) {
        result.token = (result.token + 1) % static_cast<int32_t>(vocab_);
      }
      slots_.at(row.slot).last_sampled = result.token;
    }
    if (row.alternatives < 0) continue;
    result.logprob = LogprobOf(hash, result.token);
    result.rank = 1;
    result.num_alternatives = row.alternatives;
    for (int32_t a = 0; a < row.alternatives; ++a) result.alternatives[a] = {a, LogprobOf(hash, a)};
  }
  const Ticket ticket = Enqueue([out = rows.results, results = std::move(results)] {
    std::copy(results.begin(), results.end(), out);
  });
  step_tickets_.push_back(ticket);
  return ticket;
}

Ticket FakeBackend::ZeroState(int32_t slot) {
  slots_.at(slot).state = {};
  slots_.at(slot).call_begin = -1;
  return Enqueue([] {});
}

Ticket FakeBackend::CopyState(int32_t from, int32_t to) {
  slots_.at(to).state = slots_.at(from).state;
  slots_.at(to).call_begin = -1;
  return Enqueue([] {});
}

Ticket FakeBackend::ReadState(int32_t slot, void* host, int64_t) {
  return Enqueue(
      [host, state = slots_.at(slot).state] { std::memcpy(host, &state, sizeof state); });
}

Ticket FakeBackend::WriteState(int32_t slot, const void* host, int64_t) {
  State state;
  std::memcpy(static_cast<void*>(&state), host, sizeof state);
  slots_.at(slot).state = state;
  slots_.at(slot).call_begin = -1;
  return Enqueue([host, state] { SLUICE_CHECK(std::memcmp(host, &state, sizeof state) == 0); });
}

Ticket FakeBackend::ResetCounts(int32_t, absl::Span<const int32_t>) {
  return Enqueue([] {});
}

Ticket FakeBackend::Enqueue(std::function<void()> complete) {
  pending_.emplace(++last_ticket_, std::move(complete));
  return last_ticket_;
}

void FakeBackend::Complete(Ticket ticket) {
  const auto it = pending_.find(ticket);
  if (it == pending_.end()) return;
  it->second();
  pending_.erase(it);
}

absl::Status FakeBackend::Await(Ticket ticket) {
  if (!fault_.ok()) return fault_;
  const bool is_step = std::count(step_tickets_.begin(), step_tickets_.end(), ticket) > 0;
  if (is_step && before_await_) before_await_();
  if (is_step && steps_until_fault_ >= 0 && steps_until_fault_-- == 0) {
    fault_ = absl::InternalError("fake device fault");
    return fault_;
  }
  Complete(ticket);
  return absl::OkStatus();
}

bool FakeBackend::Done(Ticket ticket) {
  if (!fault_.ok()) return true;
  // Some other ticket is done instead, as often as not.
  if (!pending_.empty() && rng_() % 2 == 0) {
    auto it = pending_.begin();
    std::advance(it, rng_() % pending_.size());
    Complete(it->first);
  }
  return pending_.find(ticket) == pending_.end();
}

}  // namespace sluice
