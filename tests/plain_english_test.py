#!/usr/bin/env python3
"""Comments, help and pages are whole sentences. Usage: plain_english_test.py [SOURCE_DIR]

Refuses comments that begin with a word that only the line above could give a meaning, help texts of flags that do not stand alone,
and phrases that stopped readers. The text beside each field of ServerOptions must be the one that --help prints. A self-test plants
faults first and expects each to be found."""

import ast
import pathlib
import re
import subprocess
import sys

FOLDERS = ("proto", "flags", "server", "client", "engine", "kernels", "tests", "deploy", "cmake", "CMakeLists.txt", "README.md", "CHANGELOG.md")
HEADLESS = re.compile(r'^\s*(?://|#|""")\s?(?:Of|As|With|Where|Which|That of|Whose|Whether) ')
COMMENTED = {".h", ".cc", ".cu", ".cuh", ".proto", ".py", ".sh", ".yaml", ".cmake", ".txt"}
PAGES = {".md", ".html"}
PHRASES = ("as OpenAI's API has it", "in the box", "in no batch formed after", "What prompts begin with is kept too",
           "for each tenant apart", "that nobody knows is passed over")
# Conjunctions, and participles.
FLAG_START = re.compile(r"(?:and|or|but|of|which|also|then|as|with|where|\w+ed|\w+ing)\b", re.I)
SELF = "tests/plain_english_test.py"


def literals(text):
    """The text of C++ string literals that stand beside each other."""
    return "".join(ast.literal_eval(part) for part in re.findall(r'"(?:[^"\\]|\\.)*"', text))


def server_flags(text):
    """name -> help of the rows of server/flag_table.cc."""
    rows = re.findall(r'\{\s*"(\w+)",\s*"(?:[^"\\]|\\.)*",\s*k\w+,\s*((?:"(?:[^"\\]|\\.)*"\s*)+),\s*&Options::\1\b', text)
    return {name: literals(help_text) for name, help_text in rows}


def client_flags(text):
    """[(name, help)] of flags->Add({"name", "VALUE", "help", ...})."""
    rows = re.findall(r'Add\(\s*\{\s*"([\w-]+)",\s*(?:"[^"]*"|k\w+),\s*((?:"(?:[^"\\]|\\.)*"\s*)+),', text)
    return [(name, literals(help_text)) for name, help_text in rows]


def field_comments(text):
    """name -> the comment above a field of ServerOptions."""
    body = text[text.index("struct ServerOptions {"):]
    body = body[:body.index("\n};")]
    fields = re.findall(r"((?:^  // .*\n)+)  [\w:]+ (\w+)(?: = [^;]+)?;", body, re.M)
    return {name: " ".join(line.strip()[3:] for line in comment.splitlines()) for comment, name in fields}


def flag_faults(where, flags):
    for name, text in flags:
        if FLAG_START.match(text):
            yield f"{where}: --{name}: '{text[:40]}' does not stand alone"
        elif not re.match(r"[A-Z/]", text) or not text.endswith("."):
            yield f"{where}: --{name}: '{text[:40]}' is no sentence"


def text_faults(name, text):
    commented = pathlib.Path(name).suffix in COMMENTED and pathlib.Path(name).name not in ("requirements.txt", "surface.json")
    for number, line in enumerate(text.splitlines(), 1):
        if commented and HEADLESS.match(line):
            yield f"{name}:{number}: headless: {line.strip()}"
    # A phrase may go on in the next line, or in the next line's comment.
    joined = re.sub(r"\s+(?://\s*|#\s*)?", " ", text).lower()
    for phrase in PHRASES:
        if phrase.lower() in joined:
            yield f"{name}: says '{phrase}'"


def table_faults(root):
    flags = server_flags((root / "server/flag_table.cc").read_text())
    comments = field_comments((root / "server/options.h").read_text())
    if len(flags) < 50:
        yield f"server/flag_table.cc: only {len(flags)} flags were found"
    yield from flag_faults("server/flag_table.cc", flags.items())
    for name in sorted(flags.keys() | comments.keys()):
        if flags.get(name) != comments.get(name):
            yield f"server/options.h: the comment of {name} is not the text of server/flag_table.cc: {flags.get(name)}"
    found = 0
    for path in sorted((root / "client/cli").glob("*.cc")):
        rows = client_flags(path.read_text())
        found += len(rows)
        yield from flag_faults(path.relative_to(root), rows)
    if found < 60:
        yield f"client/cli: only {found} flags were found"


def sources(root):
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard", *FOLDERS], cwd=root, capture_output=True, text=True)
    if listed.returncode == 0:
        return [root / name for name in listed.stdout.splitlines() if (root / name).is_file()]
    return [path for folder in FOLDERS for path in sorted((root / folder).rglob("*") if (root / folder).is_dir() else [root / folder])
            if path.is_file()]


def self_test():
    planted = [
        *(text_faults("a.cc", line) for line in ("// Of a slot.", "  // As Find, but slower.", "int x;\n// With a store.", "//Whose it is.",
                                                 "# nothing\n  // Whether it is.", "// It is in the box.",
                                                 "// It is in the\n  // box.")),
        text_faults("a.py", "# Where a block stands."), text_faults("a.md", "as OpenAI's API has it."),
        *(flag_faults("flags", [("x", text)]) for text in ("and closed then.", "of them, those of one.", "Keeping what there is.",
                                                           "Encoded by it.", "tokens in a prompt", "A sentence without an end")),
    ]
    for fault in planted:
        if not list(fault):
            sys.exit("self-test: a planted fault was not found")
    if list(text_faults("a.cc", "// A slot of the device, as\n// with others. Of course.")) or list(
            flag_faults("flags", [("x", "A prompt has at most this many tokens.")])):
        sys.exit("self-test: plain English is refused")


def main():
    self_test()
    root = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[1]).resolve()
    faults = list(table_faults(root))
    for path in sources(root):
        name = str(path.relative_to(root))
        if name != SELF and path.suffix in COMMENTED | PAGES:
            faults += text_faults(name, path.read_text(errors="replace"))
    for fault in faults:
        print(fault)
    if faults:
        sys.exit(f"plain_english_test: {len(faults)} faults, listed above")
    print("plain_english_test: every comment and flag text stands alone")


if __name__ == "__main__":
    main()
