"""The Python of both READMEs, as it stands there but for the address."""

import pathlib
import re
import subprocess
import sys

import pytest

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "client/python"


def blocks(readme):
    return re.findall(r"```python\n(.*?)```", readme.read_text(), re.DOTALL)


BLOCKS = blocks(PACKAGE / "README.md")
ELSEWHERE = [block for block in BLOCKS if "localhost:50051" not in block]


def test_blocks():
    assert len(BLOCKS) == 7 and len(ELSEWHERE) == 1 and "example.org" in ELSEWHERE[0]


def test_python(daemon, site, client):
    """All of it in one process: there is nothing in it that outlasts its block."""
    program = "\n".join(block for block in BLOCKS if block not in ELSEWHERE).replace("localhost:50051", daemon.address)
    end = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=60,
                         env={"PYTHONPATH": str(site)})
    assert end.returncode == 0 and not end.stderr, end.stderr
    for said in ("ETAG_MISMATCH", "INVALID_ARGUMENT: sampling.top_p: is 2, must be in (0, 1]\nsampling.top_p\n",
                 "[max_tokens, 40 tokens, seed 7]", "classics-12m SERVING"):
        assert said in end.stdout
    assert list(client.sessions.list()) == []
    daemon.wait_idle()


def test_the_front_page(daemon, site, client):
    block, = (block for block in blocks(PACKAGE.parent.parent / "README.md") if "sluice" in block.splitlines()[0])
    end = subprocess.run([sys.executable, "-c", block.replace("localhost:50051", daemon.address)], capture_output=True,
                         text=True, timeout=60, env={"PYTHONPATH": str(site)}, check=True)
    assert len(end.stdout.splitlines()) >= 3 and float(end.stdout.splitlines()[-1]) > 1


def test_python_for_elsewhere(monkeypatch, tmp_path):
    """It names files that nobody has, and nothing else is wrong with it."""
    monkeypatch.chdir(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"ca\.pem"):
        exec(ELSEWHERE[0], {})
