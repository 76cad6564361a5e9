#!/usr/bin/env python3
"""Random calls on sessions that three daemons share, and a kill -9 after each second of them: the long form of
test_sessions_shared.py's last test.

  tests/e2e/kill_shared.py [--deaths=100] [--daemons=3] [--seed=1]"""

import argparse
import tempfile

from shared_load import shared_load

if __name__ == "__main__":
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--deaths", type=int, default=100)
    arguments.add_argument("--daemons", type=int, default=3)
    arguments.add_argument("--seed", type=int, default=1)
    options = arguments.parse_args()
    with tempfile.TemporaryDirectory(prefix="sluice-shared-") as directory:
        print(shared_load(directory, options.daemons, options.deaths, seconds=1.0, kills=True, seed=options.seed))
