"""The largest value that each series of /metrics was seen with, over several daemons."""

import re
import subprocess

from harness import BIN, clean_environment, wait_until

# What no daemon on a CPU can move: a CPU has one step at a time. tests/gpu/test_daemon.py moves these.
ONLY_A_GPU = {"sluice_discarded_rows_total"}
# It counts a bug of ours, and must stay at zero.
ALWAYS_ZERO = {"sluice_orphan_rows_total"}


def declared():
    """Names of all metrics, from the daemon's own table."""
    page = subprocess.run([str(BIN / "sluiced"), "--help=metrics"], capture_output=True, text=True, check=True,
                          env=clean_environment()).stdout
    return re.findall(r"^\| `([^`]+)` \|", page, re.M)


def metric_of(series):
    """A series' metric, without what a histogram appends to the name."""
    return re.sub(r"_(bucket|sum|count)$", "", series.split("{")[0])


class Seen:
    def __init__(self):
        self.most = {}

    def look(self, daemon):
        samples = daemon.metrics()
        for series, value in samples.items():
            self.most[series] = max(value, self.most.get(series, 0))
        return samples

    def until(self, daemon, *series):
        """Looks until each of these is above zero at once."""
        def all_moved():
            samples = self.look(daemon)
            return all(samples.get(one, 0) > 0 for one in series)

        wait_until(all_moved, f"{series} above zero", timeout=30)

    def still(self):
        """Series that were never above zero. A bucket may stay empty; sum and count may not. A method's calls may all have
        ended with another code than OK."""
        most = {}
        for series, value in self.most.items():
            series = re.sub(r"grpc_code=\w+,", "", series)
            most[series] = max(value, most.get(series, 0))
        return sorted(series for series, value in most.items() if value <= 0 and "_bucket{" not in series)
