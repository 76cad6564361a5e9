#!/usr/bin/env python3
"""200 kill -9 at random moments under load: every acknowledged durable commit is there after each.

  tests/e2e/kill_sessions.py [--rounds=200] [--seed=1]"""

import argparse
import tempfile

from test_sessions_durable import kill_rounds

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--rounds", type=int, default=200)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-kill-") as directory:
        slowest = kill_rounds(directory, options.rounds, options.seed)
    print(f"{options.rounds} kills, seed {options.seed}: nothing lost, nothing mixed; "
          f"slowest start to serving {slowest:.2f} s")
