"""What the ELF files say: the programs are built as ones that face a network should be."""

import os
import re
import subprocess

import pytest

from harness import BIN

pytestmark = pytest.mark.slow  # means nothing in a sanitized build


def readelf(program, *flags):
    done = subprocess.run(["readelf", "--wide", *flags, BIN / program], capture_output=True, text=True,
                          env={**os.environ, "LC_ALL": "C"}, check=True)
    return done.stdout


@pytest.fixture(params=["sluiced", "sluice"])
def program(request):
    return request.param


def test_position_independent_and_bound_at_start(program):
    assert re.search(r"Type:\s+DYN \(Position-Independent Executable", readelf(program, "-h"))
    dynamic = readelf(program, "-d")
    flags = re.search(r"\(FLAGS_1\)\s+Flags: (.*)", dynamic).group(1).split()
    assert {"NOW", "PIE"} <= set(flags), flags
    # The linker writes a tag of its own where it writes DT_RPATH instead of DT_RUNPATH.
    assert re.search(r"\(BIND_NOW\)|\(FLAGS\)\s+BIND_NOW", dynamic)
    assert "TEXTREL" not in dynamic


def test_libraries_are_not_looked_for_in_the_current_directory(program):
    paths = re.findall(r"\((?:RPATH|RUNPATH)\).*\[(.*)\]", readelf(program, "-d"))
    assert all(entry.startswith(("/", "$ORIGIN/")) for path in paths for entry in path.split(":")), paths


def test_segments(program):
    """The stack cannot be executed, nothing can be both written and executed, and relocations are read-only after start."""
    segments = {}
    for line in readelf(program, "-l").splitlines():
        match = re.match(r"\s+(LOAD|GNU_STACK|GNU_RELRO)\s+(?:0x\w+\s+){5}([RWE ]{3})", line)
        if match:
            segments.setdefault(match.group(1), []).append(match.group(2).replace(" ", ""))
    assert segments["GNU_STACK"] == ["RW"]
    assert segments["GNU_RELRO"] == ["R"]
    assert segments["LOAD"] and all(not ("W" in access and "E" in access) for access in segments["LOAD"])
    # Full RELRO: what is bound at start lies in that segment, so no .got.plt is left to write.
    assert ".got.plt" not in readelf(program, "-S")


def test_stack_protector_and_fortified_calls(program):
    symbols = readelf(program, "--dyn-syms")
    assert re.search(r"UND __stack_chk_fail@", symbols)
    fortified = set(re.findall(r"UND (__\w+_chk)@", symbols)) - {"__stack_chk_fail"}
    assert fortified, "no call of the C library is fortified"
    print(program, sorted(fortified))


def test_library_assertions(program):
    """libstdc++ checks indices and empty containers: its handler is called from our code."""
    assert "_ZSt21__glibcxx_assert_fail" in readelf(program, "--dyn-syms")
