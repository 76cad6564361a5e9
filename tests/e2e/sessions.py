"""Short forms of SessionService's calls, and what a session's history must give."""

import subprocess

from harness import PATIENCE, session_pb2

OPTIONS = session_pb2.SessionOptions
Tier = session_pb2.StateTier


def key_file(directory, name="state.key", keys=("a" * 64,)):
    path = directory / name
    path.write_text("\n".join(keys) + "\n")
    path.chmod(0o600)
    return path


class Sessions:
    """The sessions of one daemon."""

    def __init__(self, daemon):
        self.daemon = daemon
        self.stub = daemon.sessions

    def create(self, id="", **options):
        return self.stub.CreateSession(
            session_pb2.CreateSessionRequest(options=OPTIONS(id=id, **options)), timeout=PATIENCE)

    def get(self, id):
        return self.stub.GetSession(session_pb2.GetSessionRequest(id=id), timeout=PATIENCE)

    def fork(self, id, new="", etag="", **options):
        return self.stub.ForkSession(session_pb2.ForkSessionRequest(
            id=id, etag=etag, options=OPTIONS(id=new, **options)), timeout=PATIENCE)

    def delete(self, id, etag=""):
        self.stub.DeleteSession(session_pb2.DeleteSessionRequest(id=id, etag=etag), timeout=PATIENCE)

    def update(self, id, etag="", labels=None, ttl=None, paths=()):
        message = session_pb2.UpdateSessionRequest(session={"id": id, "etag": etag, "labels": labels or {}})
        if ttl is not None:
            message.ttl.FromMilliseconds(round(ttl * 1000))
        message.update_mask.paths.extend(paths)
        return self.stub.UpdateSession(message, timeout=PATIENCE)

    def page(self, **fields):
        return self.stub.ListSessions(session_pb2.ListSessionsRequest(**fields), timeout=PATIENCE)

    def ids(self, **fields):
        found, token = [], ""
        while True:
            page = self.page(page_token=token, **fields)
            found += [session.id for session in page.sessions]
            token = page.next_page_token
            if not token:
                return found

    def export(self, id, etag=""):
        call = self.stub.ExportSession(session_pb2.ExportSessionRequest(id=id, etag=etag), timeout=PATIENCE)
        pieces = [piece.data for piece in call]
        assert all(0 < len(piece) <= 4194304 for piece in pieces)
        return b"".join(pieces)

    def import_(self, data, id="", piece=100_000, **options):
        def parts():
            yield session_pb2.ImportSessionRequest(options=OPTIONS(id=id, **options))
            for begin in range(0, len(data), piece):
                yield session_pb2.ImportSessionRequest(data=data[begin:begin + piece])

        return self.stub.ImportSession(parts(), timeout=PATIENCE)

    def say(self, id, prompt, tokens=16, **fields):
        """One committed turn: (the sequence, its Finished.session)."""
        stop = {"max_new_tokens": tokens, "ignore_eos": True, **fields.pop("stop", {})}
        only = self.daemon.generate(prompt, session_id=id, stop=stop, **fields).only
        return only, only.finished.session
