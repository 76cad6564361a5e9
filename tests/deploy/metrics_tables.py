"""The tables of metrics in deploy/README.md, made from the daemon's declarations of its metrics (`sluiced --help=metrics`).

  python tests/deploy/metrics_tables.py    writes them anew, from the daemon of SLUICE_BIN_DIR"""

import pathlib
import re
import subprocess
import sys
import tempfile

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

import grpc

from certificates import Authority
from harness import BIN, Daemon, ROOT, clean_environment, inference_pb2_grpc

PAGE = ROOT / "deploy/README.md"
SETS = {"sluice": re.compile(r"sluice_|grpc_|process_"), "vllm": re.compile("vllm:")}
BLOCK = re.compile(r"<!-- metrics: (\w+) -->\n(.*?)\n<!-- end -->", re.S)


def families(text):
    """[(name, type, labels, help)] of a /metrics page, sorted by name; HELP and TYPE are of one family each."""
    found = {}
    for line in text.splitlines():
        if match := re.match(r"# HELP (\S+) (.*)", line):
            found[match[1]] = ["", set(), match[2]]
        elif match := re.match(r"# TYPE (\S+) (\S+)", line):
            found.setdefault(match[1], ["", set(), ""])[0] = match[2]
        elif match := re.match(r"([^\s{]+)\{(.*)\} ", line):
            name = match[1] if match[1] in found else re.sub(r"_(bucket|sum|count)$", "", match[1])
            found[name][1].update(set(re.findall(r'(\w+)="', match[2])) - {"le"})
    return [(name, kind, sorted(labels), meaning) for name, (kind, labels, meaning) in sorted(found.items())]


def tables(text):
    """Name of the set -> its table, of a text that has them between comments."""
    return {match[1]: match[2] for match in BLOCK.finditer(text)}


def declared():
    """The tables as the daemon's declarations give them."""
    return tables(subprocess.run([str(BIN / "sluiced"), "--help=metrics"], capture_output=True, text=True, check=True,
                                 env=clean_environment()).stdout)


def rows(table):
    """[(name, type, unit, labels, meaning)] of a table."""
    cells = [re.split(r" ?\| ?", line.strip("|").strip(" ")) for line in table.splitlines()[2:]]
    return [(name.strip("`"), kind, unit, [label for label in labels.split(", ") if label], meaning)
            for name, kind, unit, labels, meaning in cells]


def exported():
    """/metrics of a daemon that has all of its parts switched on."""
    with tempfile.TemporaryDirectory() as folder:
        authority = Authority(pathlib.Path(folder) / "authority")
        cert, key = authority.issue("server", "/CN=sluiced")
        daemon = Daemon(f"--session_dir={folder}/sessions", f"--tls_cert={cert}", f"--tls_key={key}")
        try:
            credentials = grpc.ssl_channel_credentials(authority.cert.read_bytes())
            with grpc.secure_channel(daemon.address, credentials) as channel:
                daemon.inference = inference_pb2_grpc.InferenceServiceStub(channel)
                daemon.generate("The")
            status, text = daemon.get("/metrics")
            assert status == 200
            return text
        finally:
            daemon.kill()


def main():
    made = declared()
    page, count = BLOCK.subn(lambda match: f"<!-- metrics: {match[1]} -->\n{made[match[1]]}\n<!-- end -->", PAGE.read_text())
    assert count == len(made) == len(SETS)
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
