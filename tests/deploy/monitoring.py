"""A daemon under load and the real Prometheus that scrapes it by deploy/prometheus; and the dashboard's panels, asked and drawn.

  python tests/deploy/monitoring.py SECONDS FILE.png    records that long and draws deploy/grafana/dashboards/sluice.json"""

import contextlib
import json
import pathlib
import subprocess
import sys
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import yaml

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

import grpc

from harness import Daemon, PATIENCE, ROOT, collect, request, wait_until

DASHBOARD = ROOT / "deploy/grafana/dashboards/sluice.json"


class Prometheus:
    """deploy/prometheus/prometheus.yml with fixed targets in place of DNS and a shorter interval; the rules are as they are."""

    def __init__(self, directory, targets):
        config = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())
        config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
        config["rule_files"] = [str(ROOT / "deploy/prometheus" / pattern) for pattern in config["rule_files"]]
        config["scrape_configs"] = [{"job_name": "sluice", "static_configs": [{"targets": targets}]}]
        file = pathlib.Path(directory) / "prometheus.yml"
        file.write_text(yaml.safe_dump(config))
        log_path = pathlib.Path(directory) / "prometheus.log"
        with open(log_path, "wb") as log:
            self.process = subprocess.Popen(
                ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory}/data",
                 "--web.listen-address=127.0.0.1:0"], stdin=subprocess.DEVNULL, stdout=log, stderr=log)
        self.address = wait_until(lambda: self._listens(log_path), "Prometheus listens")
        wait_until(self._ready, "Prometheus is ready")

    def _listens(self, log_path):
        text = log_path.read_text()
        assert self.process.poll() is None, text
        for line in text.splitlines():
            if "Listening on" in line and "address=127.0.0.1:" in line:
                return line.split("address=")[-1].strip()
        return None

    def _ready(self):
        with contextlib.suppress(urllib.error.URLError):
            return urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=5).status == 200

    def api(self, path, **parameters):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(parameters)}"
        try:
            with urllib.request.urlopen(url, timeout=PATIENCE) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{parameters}: {error.read().decode()}") from None

    def query(self, expression):
        return self.api("query", query=expression)["result"]

    def stop(self):
        self.process.terminate()
        self.process.wait(30)


def load(daemon, seconds, streams=24):
    """More streams than slots, some that are cancelled, some that are out of time, and one bad call a second."""
    end = time.monotonic() + seconds

    def one(i):
        number = 0
        while time.monotonic() < end:
            number += 1
            call = daemon.inference.Generate(
                request("The sea " * (1 + (i + number) % 60), sampling={"temperature": 0.8, "seed": i},
                        stop={"max_new_tokens": 20 + 10 * (i % 8), "ignore_eos": True}),
                timeout=0.3 if i % 12 == 5 else PATIENCE)
            with contextlib.suppress(grpc.RpcError):
                if i % 12 == 7:
                    next(call)
                    call.cancel()
                else:
                    collect(call)

    threads = [threading.Thread(target=one, args=(i,)) for i in range(streams)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()


def panels():
    """(row, title, unit, [(expression, legend)]) from top to bottom."""
    row = None
    for panel in json.loads(DASHBOARD.read_text())["panels"]:
        if panel["type"] == "row":
            row = panel["title"]
            continue
        targets = [(t["expr"].replace("$job", ".*").replace("$instance", ".*"), t["legendFormat"]) for t in panel["targets"]]
        yield row, panel["title"], panel["fieldConfig"]["defaults"]["unit"], targets


@contextlib.contextmanager
def monitored_daemon(directory, *flags):
    daemon = Daemon(*flags)
    try:
        prometheus = Prometheus(directory, [daemon.admin])
        try:
            yield daemon, prometheus
        finally:
            prometheus.stop()
    finally:
        daemon.kill()


def draw(prometheus, start, end, path):
    import matplotlib
    matplotlib.use("Agg")
    import matplotlib.pyplot as plot
    drawn = list(panels())
    lines = []  # of up to four panels, each of one row
    for row in dict.fromkeys(row for row, *_ in drawn):
        of_row = [panel for panel in drawn if panel[0] == row]
        lines += [of_row[first:first + 4] for first in range(0, len(of_row), 4)]
    figure, grid = plot.subplots(len(lines), 4, figsize=(18, 2.9 * len(lines)), layout="constrained")
    for axes, line in zip(grid, lines):
        axes[0].set_ylabel(line[0][0], fontsize=8, fontweight="bold")
        for axis in axes[len(line):]:
            axis.set_visible(False)
        for axis, (_, title, unit, targets) in zip(axes, line):
            for expression, legend in targets:
                for series in prometheus.api("query_range", query=expression, start=start, end=end, step=1)["result"]:
                    label = legend
                    for key, value in series["metric"].items():
                        label = label.replace("{{" + key + "}}", "daemon" if key == "instance" else value)
                    points = [(float(t) - start, float(v)) for t, v in series["values"]]
                    axis.plot(*zip(*points), label=label, linewidth=1.4)
            axis.set_title(f"{title} [{unit}]", fontsize=10)
            axis.set_ylim(bottom=0)
            axis.grid(alpha=0.3)
            if axis.get_legend_handles_labels()[0]:
                axis.legend(fontsize=7)
    figure.savefig(path, dpi=65)


def main():
    import tempfile
    seconds, path = float(sys.argv[1]), sys.argv[2]
    with tempfile.TemporaryDirectory() as directory:
        with monitored_daemon(directory, "--device_state_bytes=9437184") as (daemon, prometheus):
            start = time.time()
            time.sleep(3)
            for streams in (6, 40, 12):
                load(daemon, seconds / 3, streams)
            time.sleep(3)
            draw(prometheus, start, time.time(), path)


if __name__ == "__main__":
    main()
