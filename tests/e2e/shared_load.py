"""Random calls on sessions that several daemons share, deaths among them, and what must be there afterwards.

Each call commits tokens of its own, so a session's history tells which calls are in it, once and in order. A history cannot
be read, but what it is can be checked: the next tokens and their log-probabilities, against a daemon that is given the
whole history as a prompt.
"""

import random
import signal
import threading
import time

import grpc

import harness
from harness import generate_pb2
from sessions import Sessions

Code = grpc.StatusCode
POLICIES = [generate_pb2.ConflictPolicy.Value(name) for name in
            ("CONFLICT_POLICY_FAIL", "CONFLICT_POLICY_WAIT", "CONFLICT_POLICY_CANCEL_RUNNING")]


# What is looked at of a history: the likeliest tokens that would follow.
LOOK = {"tokens": 3, "output": {"logprobs": 8}}


def alike(these, those):
    """A history in one prompt and in turns is the same up to rounding; another one is not: logits move by tenths."""
    for a, b in zip(these, those, strict=True):
        pairs = zip((x.logprob for x in a.alternatives), (x.logprob for x in b.alternatives), strict=True)
        if any(abs(x - y) > 2e-3 for x, y in pairs):
            return False
        if a.token_id != b.token_id:  # as likely, and what follows is another text
            return True
    return True


class Commit:
    """A call that was acknowledged, or whose end nobody heard of."""

    def __init__(self, tokens, end, daemon, durable, known):
        self.tokens, self.end, self.daemon, self.durable, self.known = tokens, end, daemon, durable, known

    def __repr__(self):
        return f"({self.end}-{len(self.tokens)} at {self.daemon}{' durable' * self.durable}{'' if self.known else ' unheard'})"


class Ledger:
    """A session: the history that is sure, and what was said since."""

    def __init__(self, name):
        self.name = name
        self.history = []
        self.commits = []
        self.lock = threading.Lock()
        self.newest = 0  # the largest position that was acknowledged since the last death


class Load:
    def __init__(self, directory, count, sessions=4, seed=1):
        self.flags = (f"--session_dir={directory}", "--session_dir_shared")
        self.rng = random.Random(seed)
        self.daemons = [harness.Daemon(*self.flags) for _ in range(count)]
        self.reference = harness.Daemon()
        self.ledgers = [Ledger(f"s{i}") for i in range(sessions)]
        self.refused = self.acknowledged = self.lost = self.moved = self.kills = 0
        self.problems = []
        self.stop = threading.Event()
        self.next_token = 300
        self.lock = threading.Lock()
        for ledger in self.ledgers:
            Sessions(self.daemons[0]).create(ledger.name)

    def close(self):
        for daemon in [*self.daemons, self.reference]:
            daemon.kill()

    def tokens(self, rng):
        with self.lock:
            count = rng.randint(1, 3)
            self.next_token += count
            return [300 + (self.next_token + i) % 3000 for i in range(count)]

    # ---- Clients ----

    def write(self, rng):
        """Calls that commit, on any session at any daemon."""
        while not self.stop.is_set():
            ledger = rng.choice(self.ledgers)
            number = rng.randrange(len(self.daemons))
            tokens, durable = self.tokens(rng), rng.random() < 0.3
            new = rng.choice((0, 0, 2, 12))
            try:
                only = self.daemons[number].generate(
                    tokens, session_id=ledger.name, durable=durable, on_conflict=rng.choice(POLICIES), timeout=30,
                    stop={"max_new_tokens": new, "ignore_eos": True}).only
            except grpc.RpcError as error:
                if error.code() in (Code.ABORTED, Code.CANCELLED):  # sure not to be there
                    self.refused += 1
                    continue
                if error.code() != Code.UNAVAILABLE:
                    self.problems.append(f"{ledger.name} at {number}: {error.code()} {error.details()}")
                    return
                if new == 0:
                    with ledger.lock:
                        ledger.commits.append(Commit(tokens, None, number, durable, False))
                else:
                    with ledger.lock:  # of what it would have generated nobody knows; the reference does
                        ledger.commits.append(Commit((tokens, new), None, number, durable, False))
                return  # its daemon is dead
            with ledger.lock:
                end = only.finished.session.position
                ledger.commits.append(Commit(tokens + list(only.token_ids), end, number, durable, True))
                ledger.newest = max(ledger.newest, end)

    def read(self, rng):
        """Nobody is told of less than was acknowledged before."""
        while not self.stop.is_set():
            ledger = rng.choice(self.ledgers)
            least = ledger.newest
            try:
                sessions = Sessions(rng.choice(self.daemons))
                if rng.random() < 0.2:
                    now = {s.id: s for s in sessions.page(page_size=100).sessions}[ledger.name]
                else:
                    now = sessions.get(ledger.name)
            except grpc.RpcError as error:
                if error.code() != Code.UNAVAILABLE:
                    self.problems.append(f"read: {error.code()} {error.details()}")
                return
            if now.position < least and not self.stop.is_set():
                self.problems.append(f"{ledger.name}: told of {now.position}, {least} was acknowledged")

    def epoch(self, seconds, kill):
        """Load for some seconds, at whose end a daemon may die; then everything is looked at."""
        self.stop.clear()
        jobs = [self.write] * 5 + [self.read] * 2
        threads = [threading.Thread(target=job, args=(random.Random(self.rng.random()),)) for job in jobs]
        for thread in threads:
            thread.start()
        time.sleep(seconds)
        dead = self.rng.randrange(len(self.daemons)) if kill else None
        if kill:
            self.kills += 1
            self.daemons[dead].send(signal.SIGKILL)
        self.stop.set()
        for thread in threads:
            thread.join(60)
            assert not thread.is_alive(), "a call does not end"
        assert not self.problems, self.problems
        living = self.daemons[1 if dead == 0 else 0]
        for ledger in self.ledgers:
            self.settle(ledger, living, dead)
        if kill:
            self.daemons[dead].kill()
            self.daemons[dead] = harness.Daemon(*self.flags)

    # ---- What must be there ----

    def settle(self, ledger, daemon, dead):
        sessions = Sessions(daemon)
        position = sessions.get(ledger.name).position
        kept = [c for c in ledger.commits if c.known and (c.durable or c.daemon != dead)]
        perhaps = [c for c in ledger.commits if c not in kept]
        assert dead is not None or not perhaps, perhaps
        seen = sessions.say(ledger.name, None, **LOOK, commit_policy=2)[0].logprobs if position else None
        chain = self.chain(ledger, kept, perhaps, position, seen)
        assert chain is not None, \
            f"{ledger.name} is at {position} from {len(ledger.history)}: not what was acknowledged: {ledger.commits}"
        lost = [c for c in ledger.commits if c.known and c not in chain]
        assert all(c.daemon == dead and not c.durable for c in lost)
        self.acknowledged += sum(c.known for c in ledger.commits)
        self.lost += len(lost)
        self.moved += sum(a.daemon != b.daemon for a, b in zip(chain, chain[1:]))
        for commit in chain:
            ledger.history += commit.tokens
        ledger.commits, ledger.newest = [], position

    def chain(self, ledger, kept, perhaps, position, seen):
        """The commits that lead from the history that was sure to `position`, each where it was said to be."""
        starts = {}
        for commit in kept + [c for c in perhaps if c.known]:
            starts.setdefault(commit.end - len(commit.tokens), []).append(commit)
        unheard = [c for c in perhaps if not c.known]

        def search(at, chain, left):
            if at == position:
                if all(c in chain for c in kept) and self.fits(ledger, chain, seen):
                    return chain
                return None
            for commit in starts.get(at, []):
                found = search(commit.end, [*chain, commit], left)
                if found is not None:
                    return found
            for commit in left:
                whole = self.whole(ledger, chain, commit)
                if at + len(whole.tokens) <= position:
                    found = search(at + len(whole.tokens), [*chain, whole], [c for c in left if c is not commit])
                    if found is not None:
                        return found
            return None

        return search(len(ledger.history), [], unheard)

    def whole(self, ledger, chain, commit):
        if not isinstance(commit.tokens, tuple):
            return commit
        tokens, new = commit.tokens
        prompt = self.text(ledger, chain) + tokens
        only = self.reference.generate(prompt, stop={"max_new_tokens": new, "ignore_eos": True}).only
        return Commit(tokens + list(only.token_ids), None, commit.daemon, commit.durable, False)

    @staticmethod
    def text(ledger, chain):
        return ledger.history + [token for commit in chain for token in commit.tokens]

    def fits(self, ledger, chain, seen):
        history = self.text(ledger, chain)
        if not history:
            return seen is None
        told = self.reference.generate(history, stop={"max_new_tokens": 3, "ignore_eos": True}, output=LOOK["output"])
        return alike(told.only.logprobs, seen)


def shared_load(directory, count, epochs, seconds, kills, seed=1):
    """One line that says what happened."""
    load = Load(directory, count, seed=seed)
    try:
        for _ in range(epochs):
            load.epoch(seconds, kills)
        if not kills:
            for daemon in load.daemons:
                assert daemon.stop() == 0
        return (f"{count} daemons, {load.kills} deaths: {load.acknowledged} commits acknowledged, {load.lost} plain ones "
                f"of the dead lost, {load.moved} times another daemon went on, {load.refused} calls refused")
    finally:
        load.close()
