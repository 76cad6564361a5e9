"""The types hold, and catch what a caller gets wrong."""

import os
import pathlib
import subprocess
import sys

PACKAGE = pathlib.Path(__file__).resolve().parents[3] / "client/python"

WRONG = """
import sluice
client = sluice.Client(timeout="5")  # arg-type
client.generate("a", temprature=1.0)  # call-arg
client.generate("a", commit_policy="maybe")  # arg-type
client.score("a").perplexity.upper()  # attr-defined
client.model().nme  # attr-defined
for text in client.generate("a"):
    text + 1  # operator
"""


def mypy(site, tmp_path, *arguments):
    command = [sys.executable, "-m", "mypy", f"--config-file={PACKAGE / 'pyproject.toml'}",
               f"--cache-dir={tmp_path}", "--no-error-summary", *map(str, arguments)]
    end = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, "MYPYPATH": str(site)})
    return end.stdout


def test_types(site, tmp_path):
    wrong = tmp_path / "wrong.py"
    wrong.write_text(WRONG)
    files = [*sorted((site / "sluice").glob("*.py")), *sorted((PACKAGE / "examples").glob("*.py")), wrong]
    expected = [(n, line.split("# ")[1]) for n, line in enumerate(WRONG.splitlines(), 1) if "# " in line]
    found = [line for line in mypy(site, tmp_path, *files).splitlines() if ": error: " in line]
    assert [(int(line.split(":")[1]), line.rsplit("[", 1)[1][:-1]) for line in found] == expected, "\n".join(found)
    assert all(line.split(":")[0].endswith("wrong.py") for line in found)
