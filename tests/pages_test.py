#!/usr/bin/env python3
"""The README is short, and every page, link, error and status is found from it. Usage: pages_test.py [SOURCE_DIR]

Prints every fault that it finds; a self-test plants faults first and expects each to be found."""

import pathlib
import re
import subprocess
import sys
import tempfile

MAX_README_LINES = 170
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
# Pages that README.md need not link: they belong to the page of the folder above them.
BESIDE = {"deploy/models/classics-12m/README.md", "deploy/wheel/README.md", "tests/bench/results/cpu.md", "tests/bench/results/sessions.md"}


def without_code(text):
    return re.sub(r"^```.*?^```", "", text, flags=re.S | re.M)


def anchors(text):
    """The anchors that GitHub makes of a page's headings."""
    titles = re.findall(r"^#+ (.*)$", without_code(text), re.M)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def pages(root):
    """Every page of the repository, without what a build or an environment holds."""
    if (root / ".git").exists():
        listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", "*.md"], cwd=root, capture_output=True, text=True,
                                check=True).stdout.split()
        return sorted(root / name for name in listed if (root / name).exists())
    return sorted(path for path in root.rglob("*.md") if not re.match(r"build|\.", path.relative_to(root).parts[0]))


def links(page):
    """(path that is linked or None, anchor or None) of every link to a page or file of the repository."""
    for target in LINK.findall(without_code(page.read_text())):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        yield (page.parent / path).resolve() if path else page.resolve(), anchor or None


def broken_links(root, found):
    for page in found:
        name = page.relative_to(root)
        for path, anchor in links(page):
            if not path.exists():
                yield f"{name}: links {path}, which is not there"
            elif anchor and anchor not in anchors(path.read_text()):
                yield f"{name}: links #{anchor}, which is no heading of {path.relative_to(root)}"


def unlinked(root, found):
    readme = (root / "README.md").resolve()
    linked = [path for path, anchor in links(readme) if anchor is None]
    for page in found:
        name = str(page.relative_to(root))
        count = linked.count(page.resolve())
        if page.resolve() != readme and name not in BESIDE and count != 1:
            yield f"README.md: links {name} {count} times, must be once"


def missing(root, page, what, names):
    text = (root / page).read_text()
    return [f"{page}: has no row of {what} {name}" for name in sorted(names) if f"| `{name}` |" not in text and f"| {name} |" not in text]


def reasons(root):
    """The reasons of google.rpc.ErrorInfo that a daemon can give."""
    text = "\n".join(path.read_text() for path in sorted((root / "server").glob("*.cc")))
    given = set(re.findall(r'WithReason\((?:[^;]*?)"([A-Z]+(?:_[A-Z]+)+)"\)', text))
    table = re.search(r"const char\* AbortedReason.*?\nbool ", (root / "server/status.cc").read_text(), re.S).group(0)
    # An error without a text of its own, and codes that nothing gives.
    return given | set(re.findall(r'return "([A-Z_]+)"', table)) - {"ABORTED", "UNIMPLEMENTED"}


def statuses(root):
    """The statuses of errors that a client can see: at 499 it has left."""
    codes = re.findall(r"case (\d+):", (root / "server/http/http_message.cc").read_text())
    return {code for code in codes if code >= "400"} - {"499"}


def faults(root):
    found = pages(root)
    lines = len((root / "README.md").read_text().splitlines())
    out = [f"README.md: has {lines} lines, at most {MAX_README_LINES} are allowed"] if lines > MAX_README_LINES else []
    out += broken_links(root, found)
    out += unlinked(root, found)
    if (root / "server").exists():
        out += missing(root, "server/README.md", "reason", reasons(root))
        out += missing(root, "server/http/README.md", "status", statuses(root))
    return out


def self_test():
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder).resolve()
        (root / "a").mkdir()
        readme, page = root / "README.md", root / "a/README.md"

        def finds(text, fault):
            readme.write_text(text)
            got = faults(root)
            if fault is None and got or fault is not None and not any(fault in line for line in got):
                sys.exit(f"self-test: expected {fault!r} of {text[:60]!r}, found {got}")

        page.write_text("# A Page: it's here\n")
        finds("[a](a/README.md) [b](a/README.md#a-page-its-here)\n", None)
        finds("[a](a/README.md) [b](a/README.md#nowhere)\n", "#nowhere")
        finds("[a](a/README.md) [b](b/README.md)\n", "is not there")
        finds("[a](a/README.md) [b](a/README.md)\n", "2 times")
        finds("nothing\n", "0 times")
        finds("[a](a/README.md)\n" + "line\n" * MAX_README_LINES, "lines")


def main():
    self_test()
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1]).resolve()
    found = faults(root)
    for fault in found:
        print(fault)
    if found:
        sys.exit("pages_test: the faults above are in the pages")
    print("pages_test: every page is linked once, and every link, reason and status is there")


if __name__ == "__main__":
    main()
