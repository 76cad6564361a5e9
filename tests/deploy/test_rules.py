"""deploy/prometheus: promtool reads the configuration, and the rules do what tests/deploy/rules_test.yml says."""

import re
import subprocess

import yaml

from harness import ROOT

RULES = sorted((ROOT / "deploy/prometheus/rules").glob("*.yml"))


def promtool(*arguments):
    done = subprocess.run(["promtool", *map(str, arguments)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_configuration():
    promtool("check", "config", ROOT / "deploy/prometheus/prometheus.yml")
    assert "SUCCESS" in promtool("check", "rules", *RULES)


def test_rules_fire_when_they_should():
    promtool("test", "rules", ROOT / "tests/deploy/rules_test.yml")


def test_every_rule_has_a_test():
    text = (ROOT / "tests/deploy/rules_test.yml").read_text()
    rules = [rule for file in RULES for group in yaml.safe_load(file.read_text())["groups"] for rule in group["rules"]]
    untested = [rule["alert"] for rule in rules if "alert" in rule
                and not re.search(rf"alertname: {rule['alert']}\n +eval_time: \S+\n +exp_alerts:\n", text)]
    assert len(rules) > 10 and not untested, untested
