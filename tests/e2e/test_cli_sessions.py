"""`sluice session` and `sluice chat` against the daemon: what is told in one of them is there in the other."""

import json

import pytest

from harness import run_sluice
from sessions import key_file

TURN = ("--max_new_tokens=8", "--ignore_eos")


@pytest.fixture
def stories(start_daemon, tmp_path):
    return start_daemon(f"--state_key_file={key_file(tmp_path)}")


def good(daemon, *arguments, **keywords):
    end = run_sluice(daemon, *arguments, **keywords)
    assert end.returncode == 0, end.stderr
    return end.stdout


def show(daemon, id):
    return json.loads(good(daemon, "session", "show", id, "--json"))


def ids(daemon):
    return {json.loads(line)["id"] for line in good(daemon, "session", "list", "--json").splitlines()}


def test_a_session_from_its_making_to_its_end(stories, tmp_path):
    good(stories, "session", "create", "story", "--label=user=42", "--ttl=1h")
    assert show(stories, "story")["labels"] == {"user": "42"} and show(stories, "story")["position"] == "0"
    good(stories, "generate", "--session=story", "The sea", "--seed=3", *TURN)
    told = int(show(stories, "story")["position"])
    assert told > 8
    good(stories, "session", "fork", "story", "other")
    assert ids(stories) == {"story", "other"}
    # The same call from the same state gives the same text, in the fork too; the parent stays where it was.
    goes_on = good(stories, "generate", "--session=other", " and", "--seed=4", *TURN)
    assert int(show(stories, "other")["position"]) > told == int(show(stories, "story")["position"])
    assert good(stories, "generate", "--session=story", " and", "--seed=4", *TURN) == goes_on
    file = tmp_path / "story.state"
    good(stories, "session", "export", "other", str(file))
    good(stories, "session", "import", str(file), "again")
    assert show(stories, "again")["position"] == show(stories, "other")["position"]
    more = ("--seed=5", *TURN)
    assert good(stories, "generate", "--session=again", ".", *more) == good(stories, "generate", "--session=other", ".", *more)
    good(stories, "session", "update", "story", "--label=user=43")
    assert show(stories, "story")["labels"] == {"user": "43"}
    good(stories, "session", "delete", "story", "other", "again")
    assert ids(stories) == set()


def test_a_session_scores_too(stories):
    good(stories, "session", "create", "story")
    good(stories, "generate", "--session=story", "The sea", *TURN)
    at = show(stories, "story")["position"]
    assert "perplexity" in good(stories, "score", "--session=story", " was cold").lower()
    assert show(stories, "story")["position"] == at, "a score commits nothing"


def test_errors_name_what_is_wrong(stories, tmp_path):
    for arguments, says in ((("session", "show", "nobody"), "nobody"),
                            (("generate", "--session=nobody", "The"), "nobody"),
                            (("session", "export", "nobody", str(tmp_path / "f")), "nobody"),
                            (("session", "import", str(tmp_path / "missing"), "x"), "missing")):
        end = run_sluice(stories, *arguments)
        assert end.returncode != 0 and len(end.stderr.strip().splitlines()) == 1, (arguments, end.stderr)
        assert says in end.stderr, end.stderr
    damaged = tmp_path / "damaged"
    damaged.write_bytes(b"no state" * 100)
    end = run_sluice(stories, "session", "import", str(damaged), "x")
    assert end.returncode != 0 and end.stderr.strip() and ids(stories) == set()


def test_chat_is_a_session(stories, tmp_path):
    file = tmp_path / "saved"
    turn = ("--temperature=0", *TURN)
    told = good(stories, "chat", "tale", *turn, stdin=f"The sea\n/fork kept\nwas cold\n/save {file}\n")
    assert told.strip()
    assert ids(stories) == {"tale", "kept"}
    assert int(show(stories, "tale")["position"]) > int(show(stories, "kept")["position"]) > 0
    # The fork told the same line goes the same way, and is then where the story is.
    again = good(stories, "chat", "kept", *turn, stdin="was cold\n")
    assert told.strip().endswith(again.strip())
    assert show(stories, "kept")["position"] == show(stories, "tale")["position"]


def test_undo_takes_a_turn_back(stories):
    turn = ("--temperature=0", *TURN)
    first = good(stories, "chat", "tale", *turn, stdin="The sea\n")
    at = show(stories, "tale")["position"]
    good(stories, "chat", "tale", *turn, stdin="was cold\n/undo\n")
    assert first.strip() and show(stories, "tale")["position"] == at
    assert ids(stories) == {"tale"}, "what undoing needed is gone"


def test_load_goes_on_in_a_new_story(stories, tmp_path):
    file = tmp_path / "saved"
    turn = ("--temperature=0", *TURN)
    good(stories, "chat", "tale", *turn, stdin=f"The sea\n/save {file}\n")
    on = good(stories, "chat", "other", *turn, stdin=f"/load {file}\nwas cold\n")
    assert len(ids(stories)) >= 2
    assert good(stories, "chat", "tale", *turn, stdin="was cold\n").strip() in on
