"""python -m sluice_server is sluiced."""

from sluice_server import run_sluiced

run_sluiced()
