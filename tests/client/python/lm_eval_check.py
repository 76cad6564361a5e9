"""lm-eval asks the model "sluice", in words and numbers as a user would; its answers must be those of Score.

Run by lm_eval_check.sh, in an environment that has sluice-client[lm-eval]. Prints what it found.
"""

import json
import math
import os
import pathlib
import re
import subprocess
import sys
import tempfile

import sluice  # before the harness: its stubs would take the name

ROOT = pathlib.Path(__file__).resolve().parents[3]
sys.path.insert(0, str(ROOT / "tests/e2e"))
import harness  # noqa: E402

TASKS = ROOT / "client/python/examples/lm_eval"
TEXT = ROOT / "LICENSE"
CHOICE = """
task: choice
custom_dataset: !function choice.documents
test_split: test
output_type: multiple_choice
target_delimiter: ""
doc_to_text: "{{start}}"
doc_to_choice: "{{ends}}"
doc_to_target: 0
metric_list: [{metric: acc}]
---
task: story
custom_dataset: !function choice.documents
test_split: test
output_type: generate_until
doc_to_text: "{{start}}"
doc_to_target: "{{written}}"
generation_kwargs: {until: ["."], max_gen_toks: 12}
metric_list: [{metric: exact_match}]
"""
DOCUMENTS = """
import datasets
def documents(**_):
    return {"test": datasets.Dataset.from_list(%r)}
"""


def lm_eval(address, tasks, folder, out, metadata=None, model=None):
    """The results of lm-eval's command line, which may not use the network. `model` is (name, arguments)."""
    name, arguments = model or ("sluice", f"target={address}")
    command = [str(pathlib.Path(sys.executable).parent / "sluice-lm-eval"), "run", "--model", name, "--model_args",
               arguments, "--include_path", str(folder), "--tasks", tasks, "--output_path", str(out)]
    if metadata:
        command += ["--metadata", json.dumps(metadata)]
    offline = {"HF_HUB_OFFLINE": "1", "HF_DATASETS_OFFLINE": "1", "HF_HOME": str(out / "hf")}
    subprocess.run(command, check=True, capture_output=True, env={**os.environ, **offline})
    newest = max(out.rglob("results_*.json"), key=lambda path: path.stat().st_mtime)
    return json.loads(newest.read_text())["results"]


def equal(what, ours, theirs):
    assert math.isclose(ours, theirs, rel_tol=1e-6), f"{what}: {ours} by lm-eval, {theirs} by Score"
    print(f"{what:<44} {ours:<20.10g} {theirs:.10g}")


def check_perplexity(client, address, out):
    text = TEXT.read_text()
    found = lm_eval(address, "local_text", TASKS, out, {"files": [str(TEXT)]})["local_text"]
    total = client.score(text).total_logprob
    size = len(text.encode())
    print(f"{TEXT.name}: {size} bytes, {len(client.tokenize(text).ids)} tokens")
    print(f"{'':<44} {'lm-eval':<20} Score")
    equal("word perplexity", found["word_perplexity,none"], math.exp(-total / len(re.split(r"\s+", text))))
    equal("byte perplexity", found["byte_perplexity,none"], math.exp(-total / size))
    equal("bits per byte", found["bits_per_byte,none"], -total / size / math.log(2))


def check_choices(client, address, out):
    """Multiple choice (loglikelihood) and generation, of tasks made here."""
    starts = ["He looked at her with great", "The captain of the", "Once upon a", "It was a dark and stormy"]
    ends = [" surprise.", " soup.", " ship.", " time.", " night."]
    documents = []
    for start in starts:
        head = client.tokenize(start).ids
        scores = {end: sum(p.logprob for p in client.score(start + end).logprobs[len(head) - 1:]) for end in ends}
        written = client.complete(start, temperature=0, max_tokens=12, stop=".").text
        # The first choice counts as right: for half of them it is the best, for the others the worst.
        order = sorted(ends, key=scores.get, reverse=len(documents) % 2 == 0)
        documents.append({"start": start, "ends": order, "written": written if len(documents) % 2 else "something else"})
    folder = out / "tasks"
    folder.mkdir()
    for name, task in zip(("choice", "story"), CHOICE.split("---")):
        (folder / f"{name}.yaml").write_text(task)
    (folder / "choice.py").write_text(DOCUMENTS % documents)
    found = lm_eval(address, "choice,story", folder, out)
    equal("right by log-likelihood, of 4", 4 * found["choice"]["acc,none"], 2)
    equal("written as by complete(), of 4", 4 * found["story"]["exact_match,none"], 2)


def check_local_completions(client, http, out):
    """lm-eval's own model of OpenAI's API, with the tokenizer of the bundled model's directory."""
    text = "The old house stood alone at the edge of the moor, and nobody had lived in it for years."
    file = out / "short.txt"
    file.write_text(text)
    arguments = f"model=classics-12m,base_url=http://{http}/v1/completions,tokenizer={harness.MODEL},max_length=2048"
    found = lm_eval(None, "local_text", TASKS, out, {"files": [str(file)]}, ("local-completions", arguments))["local_text"]
    total = client.score(text).total_logprob
    # The API writes log-probabilities with fewer digits.
    ours, theirs = found["bits_per_byte,none"], -total / len(text.encode()) / math.log(2)
    assert math.isclose(ours, theirs, rel_tol=1e-4), f"{ours} by local-completions, {theirs} by Score"
    print(f"{'bits per byte by local-completions':<44} {ours:<20.6g} {theirs:.6g}")


def main():
    daemon = harness.Daemon("--http_listen=127.0.0.1:0")
    try:
        with sluice.Client(daemon.address) as client, tempfile.TemporaryDirectory() as out:
            check_perplexity(client, daemon.address, pathlib.Path(out))
            check_choices(client, daemon.address, pathlib.Path(out))
            check_local_completions(client, daemon.http, pathlib.Path(out))
        daemon.wait_idle()
    finally:
        daemon.kill()


main()
