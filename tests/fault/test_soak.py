"""A part of soak.py, which is run for half an hour by hand."""

from harness import SCALE
from soak import run


def test_two_minutes():
    run(2 * SCALE)
