"""The tables of metrics in deploy/README.md are those of the daemon's declarations, and its page is made from the same."""

import re

import metrics_tables

HOW = "python tests/deploy/metrics_tables.py writes them anew"


def test_the_page_has_the_declared_tables():
    made, written = metrics_tables.declared(), metrics_tables.tables(metrics_tables.PAGE.read_text())
    assert set(made) == set(written) == set(metrics_tables.SETS)
    for which in made:
        assert written[which] == made[which], f"table of {which}: {HOW}"


def test_what_is_exported_is_what_is_declared():
    rows = {row[0]: row for table in metrics_tables.declared().values() for row in metrics_tables.rows(table)}
    exported = metrics_tables.families(metrics_tables.exported())
    assert len(rows) > 100 and {name for name, *_ in exported} == set(rows)
    for name, kind, labels, meaning in exported:
        assert rows[name] == (name, kind, rows[name][2], labels, meaning)


def test_every_metric_is_well_declared():
    for which, table in metrics_tables.declared().items():
        for name, kind, unit, _, meaning in metrics_tables.rows(table):
            assert metrics_tables.SETS[which].match(name), name
            assert meaning.endswith(".") and unit and kind in ("counter", "gauge", "histogram"), name
            # vLLM's own names are not ours to choose.
            assert kind != "counter" or name.endswith("_total"), name
            assert which == "vllm" or kind == "counter" or not name.endswith("_total"), name


def test_the_groups_have_every_metric():
    """The table that groups metrics by question names each of ours once, and nothing else."""
    page = metrics_tables.PAGE.read_text()
    group = page[page.index("| metrics | what they tell |"):].split("\n\n")[0]
    named = []
    for name in re.findall(r"`((?:sluice|grpc|process)_[^`]*)`", group):
        alternatives = re.fullmatch(r"(\w+)\{(\w+(?:,\w+)+)\}(_\w+)", name)
        if alternatives:
            named += [alternatives[1] + middle + alternatives[3] for middle in alternatives[2].split(",")]
        else:
            named.append(name)
    declared = {row[0]: row[3] for row in metrics_tables.rows(metrics_tables.declared()["sluice"])}
    assert sorted(re.sub(r"\{.*", "", name) for name in named) == sorted(declared)
    for name in named:
        labels = re.search(r"\{(.*)\}", name)
        assert not labels or sorted(labels[1].split(",")) == declared[name.split("{")[0]], name
