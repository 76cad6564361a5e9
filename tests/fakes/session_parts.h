// The ground that the parts of Sessions stand on, with the fake backend and clock, and records as
// the store would give them.
#ifndef SLUICE_TESTS_FAKES_SESSION_PARTS_H_
#define SLUICE_TESTS_FAKES_SESSION_PARTS_H_

#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <utility>

#include "engine/sessions/session_endings.h"
#include "tests/fakes/fake_engine.h"

namespace sluice {

struct SessionParts {
  explicit SessionParts(SessionsSetup with = {}, int64_t host_states = 100)
      : setup(std::move(with)) {
    setup.fingerprint = "model";
    setup.vocab = 4096;
    SLUICE_CHECK(backend.AllocateStates(FakeSpec(), 4, 4, 16).ok());
    copies = std::make_unique<HostCopies>(&backend, MakeStateTable(FakeSpec()));
    states = std::make_unique<StateCache>(
        copies.get(), &backend, &slots, &clock,
        StateBudget{host_states * copies->table().bytes(), int64_t{1} << 20, setup.has_store},
        &stats);
    context = {states.get(), &clock, &stats, &setup};
    table = std::make_unique<SessionTable>(context);
    queue = std::make_unique<SessionQueue>(table.get());
    expiry = std::make_unique<SessionExpiry>(context, queue.get());
    owners = std::make_unique<SessionOwners>(context, table.get(), queue.get());
    endings = std::make_unique<SessionEndings>(context, table.get(), queue.get(), expiry.get(),
                                               owners.get());
  }
  ~SessionParts() {
    for (auto& [key, session] : table->all()) table->SetWriter(session.get(), nullptr);
  }

  Session* Live(const std::string& id) {
    Session* session = table->Insert({"t", id}, SessionPhase::kLive, /*indexed=*/true);
    session->fingerprint = setup.fingerprint;
    session->now.etag = "e0";
    session->now.ttl = absl::Hours(1);
    return session;
  }
  // One whose record and state are on disk.
  Session* Stored(const std::string& id) {
    Session* session = Live(id);
    session->generation = 1;
    session->stored_version = session->version;
    StateInfo info;
    info.position = 3;
    session->now.state = states->AdoptFile(info);
    SetStored(session, session->now.state, "file-" + id);
    return session;
  }
  // A state of so many tokens in host memory.
  StatePtr InMemory(int64_t position) {
    Room room;
    const int64_t bytes = states->BytesAt(0);
    SLUICE_CHECK(states->Reserve(bytes, setup.has_store ? bytes : 0, &room).ok());
    StateInfo info;
    info.position = position;
    return states->AdoptData(info, std::make_shared<StateData>(copies->table().bytes()), &room);
  }

  FakeClock clock;
  FakeBackend backend{{}};
  SlotPool slots{4};
  EngineStats stats;
  SessionsSetup setup;
  SessionContext context;
  std::unique_ptr<HostCopies> copies;
  std::unique_ptr<StateCache> states;
  std::unique_ptr<SessionTable> table;
  std::unique_ptr<SessionQueue> queue;
  std::unique_ptr<SessionExpiry> expiry;
  std::unique_ptr<SessionOwners> owners;
  std::unique_ptr<SessionEndings> endings;
};

inline SessionsSetup WithStore(bool shared = false) {
  SessionsSetup setup;
  setup.has_store = true;
  setup.shared = shared;
  return setup;
}

// Puts what was told into *out, once.
inline std::function<void(absl::Status)> Tell(std::optional<absl::Status>* out) {
  return [out](absl::Status status) {
    SLUICE_CHECK(!out->has_value());
    *out = std::move(status);
  };
}

}  // namespace sluice

#endif  // SLUICE_TESTS_FAKES_SESSION_PARTS_H_
