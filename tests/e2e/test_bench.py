"""sluice bench against the daemon: loads, objectives, rejects, Ctrl-C, and the files it writes."""

import html.parser
import json
import signal
import subprocess

from harness import BIN, GOLDENS, PATIENCE, clean_environment, run_sluice, wait_until

SHORT = ("--prompt-tokens=uniform:4:32", "--max-new-tokens=lognormal:8:0.5:16")


def bench(daemon, *flags):
    end = run_sluice(daemon, "bench", *flags)
    assert end.returncode == 0, end.stderr + end.stdout
    return end.stdout


class Page(html.parser.HTMLParser):
    """The elements of a report, and the data in it."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.references, self.data = [], [], ""
        self.inside_data = False
        self.feed(text)
        self.close()
        self.data = json.loads(self.data)

    def handle_starttag(self, tag, attributes):
        self.elements.append(tag)
        self.references += [value for name, value in attributes if name in ("src", "href")]
        self.inside_data = dict(attributes).get("id") == "data"

    def handle_endtag(self, tag):
        self.inside_data = False

    def handle_data(self, data):
        if self.inside_data:
            self.data += data


def test_open_loop_with_files(daemon, tmp_path):
    """What the table, the JSON and the page say is what the daemon counted."""
    before = daemon.metrics()
    table = bench(daemon, "--rate=100", "--requests=40", "--warmup=3", "--slo-ttft=1h", "--slo-itl=1h", *SHORT,
                  f"--json={tmp_path / 'run.json'}", f"--html={tmp_path / 'run.html'}")
    daemon.wait_idle()
    after = daemon.metrics()
    report = json.loads((tmp_path / "run.json").read_text())
    assert "requests      40 ok, 0 rejected, 0 failed, 0 cut off" in table
    assert "met by 40 of 40 requests, 100.0 %" in table
    rows = report["requests"]
    assert [row["outcome"] for row in rows] == ["ok"] * 40
    assert sum(row["new_tokens"] for row in rows) == report["new_tokens"] == sum(report["timeline"]["new_tokens"])
    assert sum(row["prompt_tokens"] for row in rows) == report["prompt_tokens"]
    assert len({row["prompt_tokens"] for row in rows}) > 5 and len({row["new_tokens"] for row in rows}) > 3
    for row in rows:
        assert 0 < row["first_token_ms"] <= row["whole_ms"] and row["late_ms"] >= 0
    counted = after["sluice_generated_tokens_total"] - before["sluice_generated_tokens_total"]
    assert report["new_tokens"] < counted <= report["new_tokens"] + 3 * 16, "the warm-up's three requests are not in it"
    assert report["model_answer"]["name"] == "classics-12m" and report["options"]["seed"] == "1"

    page = Page((tmp_path / "run.html").read_text())
    assert page.references == [] and page.elements[:2] == ["html", "head"] and "style" in page.elements
    del report["requests"]
    points = page.data["reports"][0].pop("points")
    assert page.data["reports"][0] == report and len(points) == 40


def test_shapes(daemon, tmp_path):
    text = GOLDENS["cases"][1]
    shapes = tmp_path / "shapes"
    shapes.write_text(json.dumps({"prompt": text["text"], "output_tokens": 9}) + "\n# numbers\n7,5\n")
    report = json.loads(bench(daemon, f"--shapes={shapes}", "--requests=4", "--warmup=0", "--concurrency=2", "--json"))
    assert report["prompt_tokens"] == 2 * (len(text["ids"]) + 7)
    assert report["new_tokens"] == 2 * (9 + 5)
    shapes.write_text("7,5\n7;5\n")
    end = run_sluice(daemon, "bench", f"--shapes={shapes}")
    assert end.returncode == 2 and f"{shapes}:2: " in end.stderr
    daemon.wait_idle()


def test_turns_continue_a_session(daemon):
    """What a turn sends is its own prompt; what came before is in the session's state."""
    before = daemon.metrics()
    report = json.loads(bench(daemon, "--requests=12", "--turns=3", "--warmup=0", "--prompt-tokens=8",
                              "--max-new-tokens=4", "--json"))
    daemon.wait_idle()
    after = daemon.metrics()
    assert report["ok"] == 12 and report["prompt_tokens"] == 12 * 8
    assert report["first_token_later_turns"]["count"] == 8
    assert after["sluice_sessions_created_total"] - before.get("sluice_sessions_created_total", 0) == 4
    live = [sum(v for k, v in m.items() if k.startswith("sluice_sessions{")) for m in (before, after)]
    assert live[0] == live[1], "each was removed"


def test_same_seed_same_load(daemon):
    def lengths():
        out = bench(daemon, "--concurrency=4", "--requests=8", "--warmup=0", "--seed=5", *SHORT, "--json")
        return json.loads(out)["prompt_tokens"], json.loads(out)["new_tokens"]

    assert lengths() == lengths()


def test_rejects_are_not_failures(start_daemon):
    daemon = start_daemon("--max_queued_requests=1", "--device_state_bytes=1179648")  # 2 slots
    report = json.loads(bench(daemon, "--concurrency=32", "--requests=100", "--warmup=0", "--prompt-tokens=8",
                              "--max-new-tokens=64", "--slo-e2e=1h", "--json"))
    assert report["rejected"] > 0 and report["failed"] == 0 and report["ok"] > 0
    assert report["ok"] + report["rejected"] == 100
    assert report["codes"] == {"RESOURCE_EXHAUSTED": report["rejected"]}
    assert report["slo"]["judged"] == 100 and report["slo"]["met"] == report["ok"]


def test_all_failed(daemon):
    end = run_sluice(daemon, "bench", "--requests=3", "--warmup=0", "--temperature=-1")
    assert end.returncode == 1
    assert "0 ok, 0 rejected, 3 failed" in end.stdout
    assert "3 times INVALID_ARGUMENT: sampling.temperature" in end.stdout


def test_warmup_of_a_duration(daemon):
    """The load goes on from the warm-up into the measured part: streams are running when the clock starts."""
    report = json.loads(bench(daemon, "--concurrency=4", "--warmup=300ms", "--duration=500ms", "--prompt-tokens=8",
                              "--max-new-tokens=200", "--json"))
    assert 0.5 <= report["elapsed_seconds"] < 5
    assert report["timeline"]["running"][0] > 3
    daemon.wait_idle()


def test_ctrl_c_prints_what_there_is(daemon, tmp_path):
    process = subprocess.Popen([str(BIN / "sluice"), f"--address={daemon.address}", "bench", "--concurrency=2",
                                "--duration=1h", "--warmup=0", "--max-new-tokens=8", "--prompt-tokens=4",
                                f"--json={tmp_path / 'run.json'}"],
                               stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                               env=clean_environment())
    begin = daemon.metrics()["sluice_generated_tokens_total"]
    wait_until(lambda: daemon.metrics()["sluice_generated_tokens_total"] > begin + 100, "the load runs")
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=PATIENCE)
    assert process.returncode == 130, err
    assert "first token" in out
    assert json.loads((tmp_path / "run.json").read_text())["ok"] > 0
    daemon.wait_idle()


def test_compare(daemon, tmp_path):
    """Answers twenty times as long are a difference that no noise hides."""
    for name, tokens in (("a", 2), ("b", 40)):
        bench(daemon, "--concurrency=2", "--requests=50", "--prompt-tokens=8", f"--max-new-tokens={tokens}",
              f"--json={tmp_path / name}.json")
    arguments = ["--compare", str(tmp_path / "a.json"), str(tmp_path / "b.json")]
    page = tmp_path / "both.html"
    end = run_sluice(daemon, "bench", *arguments, f"--html={page}", address="127.0.0.1:1")
    assert end.returncode == 0, end.stderr
    rows = {line[:34].strip(): line for line in end.stdout.splitlines()}
    assert rows["whole request mean, ms"].endswith("worse (one run)")
    assert rows["not served %"].endswith("within noise")
    data = Page(page.read_text()).data
    assert [report["max_new_tokens"] for report in data["reports"]] == [2, 40]
    assert {row["name"]: row["difference"] for row in data["comparison"]}["whole request mean"] == "worse (one run)"


def test_runs_do_not_reuse_each_others_prompts(daemon, tmp_path):
    """Two runs against one daemon send other prompts, unless told to send the same: then they are not compared."""
    files = [tmp_path / f"{name}.json" for name in ("a", "b", "c", "d")]
    for file, flags in zip(files, [(), (), ("--prompt-seed=5",), ("--prompt-seed=5",)]):
        bench(daemon, "--concurrency=2", "--requests=24", "--prompt-tokens=256", "--max-new-tokens=2", "--warmup=0", f"--json={file}",
              *flags)
    reused = [json.loads(file.read_text())["reused_tokens"] for file in files]
    assert reused[:3] == [0, 0, 0] and reused[3] > 0
    assert run_sluice(daemon, "bench", "--compare", str(files[0]), str(files[1])).returncode == 0
    refused = run_sluice(daemon, "bench", "--compare", f"{files[0]},{files[1]}", f"{files[2]},{files[3]}")
    assert refused.returncode == 2 and "d.json" in refused.stderr and "prefix cache" in refused.stderr
