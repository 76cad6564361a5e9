"""The examples, as somebody runs them."""

import pathlib
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "client/python"
EXAMPLES = sorted(path.name for path in (PACKAGE / "examples").glob("*.py"))


def run(site, name, *arguments):
    return subprocess.run([sys.executable, str(PACKAGE / "examples" / name), *arguments], capture_output=True, text=True,
                          timeout=60, env={"PYTHONPATH": str(site)}, check=True).stdout


def test_each_is_tested():
    assert EXAMPLES == ["fork.py", "many.py", "score.py", "stream.py"]


def test_stream(daemon, site):
    out = run(site, "stream.py", daemon.address, "The sea")
    assert out.startswith("The sea") and out.endswith("\n[max_tokens, 60 tokens]\n")
    assert out == run(site, "stream.py", daemon.address, "The sea"), "it names its seed"


def test_many(daemon, site):
    lines = run(site, "many.py", daemon.address, "6").splitlines()
    assert [line.split(" ")[0] for line in lines] == [f"{i}:" for i in range(6)] and len(set(lines)) == 6


def test_fork(daemon, site, client):
    endings = run(site, "fork.py", daemon.address).split("\n\n")
    assert len([e for e in endings if e[:1] in "012"]) >= 3 and endings[0].startswith("It was a dark and stormy night;")
    assert list(client.sessions.list()) == []


def test_score(daemon, site):
    lines = run(site, "score.py", daemon.address).splitlines()
    assert "great surprise" in lines[0] and "Surprise great" in lines[-1]
    assert run(site, "score.py", daemon.address, "One text.").startswith("perplexity ")


def test_an_unreached_daemon_is_one_line(site):
    with pytest.raises(subprocess.CalledProcessError) as caught:
        run(site, "score.py", "127.0.0.1:1")
    assert caught.value.stderr.splitlines()[-1].endswith("is sluiced running at 127.0.0.1:1?")
