"""The tables of metrics in deploy/README.md, as a running daemon exports them.

  python tests/deploy/metrics_tables.py    writes them anew, from the daemon of SLUICE_BIN_DIR"""

import pathlib
import re
import sys
import tempfile

if __name__ == "__main__":
    sys.path.insert(0, str(pathlib.Path(__file__).resolve().parent.parent / "e2e"))

from harness import Daemon, ROOT

PAGE = ROOT / "deploy/README.md"
SETS = {"sluice": re.compile(r"sluice_|grpc_|process_"), "vllm": re.compile("vllm:")}


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


def unit(name):
    stem = name.removesuffix("_total")
    for suffix, word in (("_seconds", "s"), ("_bytes", "bytes"), ("_info", "1"), ("_perc", "0 to 1"), ("_healthy", "0 or 1"),
                         ("tokens", "tokens"), ("orphan_rows", "tokens"),
                         ("discarded_rows", "tokens"), ("held_rows", "tokens"), ("prefix_cache_queries", "tokens"), ("prefix_cache_hits", "tokens")):
        if stem.endswith(suffix):
            return word
    return "tokens" if stem.endswith("step_rows") else "see meaning" if stem == "sluice_limit" else "count"


def tables(text):
    """Name of the set -> its table."""
    out = {}
    for which, pattern in SETS.items():
        rows = [f"| `{name}` | {kind} | {unit(name)} | {', '.join(labels)} | {meaning} |"
                for name, kind, labels, meaning in families(text) if pattern.match(name)]
        out[which] = "\n".join(["| metric | type | unit | labels | meaning |", "|---|---|---|---|---|", *rows])
    return out


def block(which):
    return re.compile(rf"(<!-- metrics: {which} -->\n).*?(<!-- end -->)", re.S)


def exported():
    """/metrics of a daemon that has all of its parts switched on."""
    with tempfile.TemporaryDirectory() as sessions:
        daemon = Daemon(f"--session_dir={sessions}")
        try:
            daemon.generate("The")
            status, text = daemon.get("/metrics")
            assert status == 200
            return text
        finally:
            daemon.kill()


def main():
    page = PAGE.read_text()
    for which, table in tables(exported()).items():
        page, count = block(which).subn(lambda match: match[1] + table + "\n" + match[2], page)
        assert count == 1, which
    PAGE.write_text(page)


if __name__ == "__main__":
    main()
