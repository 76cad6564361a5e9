"""The tables of metrics in deploy/README.md name what the daemon exports: all of it, and nothing else."""

import re

import metrics_tables

HOW = "python tests/deploy/metrics_tables.py writes them anew"


def test_tables_are_what_is_exported():
    text = metrics_tables.exported()
    page = metrics_tables.PAGE.read_text()
    names = {name for name, *_ in metrics_tables.families(text)}
    covered = {name for name in names if any(p.match(name) for p in metrics_tables.SETS.values())}
    assert len(names) > 50 and names == covered, names - covered
    for which, table in metrics_tables.tables(text).items():
        written = metrics_tables.block(which).search(page)
        assert written, f"no table of {which} in deploy/README.md"
        assert written[0].split("\n", 1)[1].rsplit("\n", 1)[0] == table, f"table of {which}: {HOW}"


def test_no_metric_is_without_a_meaning():
    for name, kind, _, meaning in metrics_tables.families(metrics_tables.exported()):
        assert meaning.strip() and kind in ("counter", "gauge", "histogram"), name
        assert kind != "counter" or re.search(r"_total$", name), name
