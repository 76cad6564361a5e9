"""Sessions of an earlier daemon: the files and the export that a daemon of commit 71a9137 left of one session
(tests/goldens/frozen/sessions) open, and the session goes on as it went on there."""

import json
import shutil

import pytest

from harness import ROOT, model_pb2
from sessions import Sessions, key_file

FROZEN = ROOT / "tests/goldens/frozen/sessions"
EXPECTED = json.loads((FROZEN / "expected.json").read_text())


@pytest.fixture
def sessions(start_daemon, tmp_path):
    """A daemon on a copy of the model and of the earlier daemon's directory."""
    model = tmp_path / "model"
    shutil.copytree(ROOT / "tests/goldens/variants/short_conv", model)
    shutil.copy(FROZEN / "tokenizer.json", model)
    files = tmp_path / "store/sessions/t-/s-a"
    files.mkdir(parents=True)
    for suffix in ("session", "state"):
        (path,) = FROZEN.glob(f"*.{suffix}")
        shutil.copy(path, files)
    # The session went on with ids that the model's small tokenizer has no piece for, which are not sampled any more
    # where there is a tokenizer.
    return Sessions(start_daemon("--tokenizer=none", f"--session_dir={tmp_path / 'store'}",
                                 f"--state_key_file={key_file(tmp_path)}", model=model))


def goes_on(sessions, id):
    said, _ = sessions.say(id, [7, 8, 9], tokens=24, output={"logprobs": 0}, commit_policy=2)
    assert said.token_ids == EXPECTED["tokens"]
    numerics = sessions.get(id).numerics_id
    assert numerics == EXPECTED["numerics_id"]
    seen = [entry.logprob for entry in said.logprobs]
    # Elsewhere another instruction set goes on from the same numbers.
    error = 0 if numerics_of_daemon(sessions) == EXPECTED["numerics_id"] else sessions.daemon.logprob_error
    assert seen == pytest.approx(EXPECTED["logprobs"], abs=error, rel=0)


def numerics_of_daemon(sessions):
    return sessions.daemon.inference.GetModel(model_pb2.GetModelRequest()).numerics_id


def test_its_files(sessions):
    session = sessions.get("a")
    assert (session.position, session.etag, session.labels, session.affinity, session.last_request_id) == \
        (EXPECTED["position"], EXPECTED["etag"], {"mood": "dark"}, "shelf", "turn 1")
    goes_on(sessions, "a")


def test_its_export(sessions):
    assert sessions.import_((FROZEN / "a.blob").read_bytes(), "imported").position == EXPECTED["position"]
    goes_on(sessions, "imported")


def test_its_bytes_are_still_written(sessions):
    assert sessions.export("a") == (FROZEN / "a.blob").read_bytes()
