"""deploy/kubernetes, deploy/compose.yaml and deploy/systemd: built, validated, and held against what the daemon is."""

import pathlib
import re
import subprocess
import sys

import kubernetes_validate
import pytest
import yaml
from compose_spec import ComposeSpecification

from harness import BIN, MODEL, ROOT, Daemon

DEPLOY = ROOT / "deploy"
KUBERNETES = DEPLOY / "kubernetes"
KUBECTL = pathlib.Path(sys.executable).parent / "kubectl"
# Kinds of operators that are not Kubernetes' own, so that kubernetes-validate has no schema of them.
FOREIGN = {"ServiceMonitor", "PrometheusRule", "ScaledObject"}


def kustomize(folder):
    done = subprocess.run([KUBECTL, "kustomize", KUBERNETES / folder], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "deprecated" not in done.stderr, done.stderr
    return list(yaml.safe_load_all(done.stdout))


def one(objects, kind):
    found = [o for o in objects if o["kind"] == kind]
    assert len(found) == 1, kind
    return found[0]


def validate(objects):
    for item in objects:
        if item["kind"] not in FOREIGN:
            kubernetes_validate.validate(item, kubernetes_validate.latest_version(), strict=True)


@pytest.mark.parametrize("folder", ["overlays/cpu", "overlays/gpu", "monitoring", "edge"])
def test_kustomizations_are_valid(folder):
    objects = kustomize(folder)
    assert objects
    validate(objects)


def test_autoscaling_is_valid():
    for file in (KUBERNETES / "autoscaling").glob("*.yaml"):
        validate(yaml.safe_load_all(file.read_text()))


def test_validation_can_fail():
    objects = kustomize("overlays/cpu")
    one(objects, "StatefulSet")["spec"]["replica"] = 2
    with pytest.raises(kubernetes_validate.ValidationError):
        validate(objects)


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_parts_fit_together(overlay):
    objects = kustomize(f"overlays/{overlay}")
    pods = one(objects, "StatefulSet")["spec"]
    template = pods["template"]
    container = template["spec"]["containers"][0]
    labels = template["metadata"]["labels"].items()
    assert pods["selector"]["matchLabels"].items() <= labels
    assert one(objects, "Service")["spec"]["selector"].items() <= labels
    assert one(objects, "PodDisruptionBudget")["spec"]["selector"]["matchLabels"].items() <= labels
    assert one(objects, "NetworkPolicy")["spec"]["podSelector"]["matchLabels"].items() <= labels
    flags = one(objects, "ConfigMap")
    assert {"name": "flags", "configMap": {"name": flags["metadata"]["name"]}} in template["spec"]["volumes"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert {port["targetPort"]: port["port"] for port in one(objects, "Service")["spec"]["ports"]} == ports
    # The grace period holds the hook, the drain and what comes after it.
    drain = int(re.search(r"--drain_timeout=(\d+)s", flags["data"]["sluiced.flags"]).group(1))
    hook = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    slow_readers, flush = 10, 10  # the default of --flush_timeout
    assert template["spec"]["terminationGracePeriodSeconds"] > drain + hook + slow_readers + flush
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")
    # All clients of Envoy have one address: none may use up what another is allowed to get wrong.
    assert "--auth_failures_per_minute=0" in flags["data"]["sluiced.flags"].splitlines()


def test_operators_rules_are_prometheus_own():
    written = subprocess.run([KUBERNETES / "monitoring/rules.sh"], capture_output=True, text=True, check=True).stdout
    assert written == (KUBERNETES / "monitoring/prometheusrule.yaml").read_text(), "rules.sh > prometheusrule.yaml"
    groups = [group for name in ("recording", "alerts")
              for group in yaml.safe_load((DEPLOY / f"prometheus/rules/{name}.yml").read_text())["groups"]]
    assert yaml.safe_load(written)["spec"]["groups"] == groups


def test_compose():
    text = (DEPLOY / "compose.yaml").read_text()
    services = ComposeSpecification.model_validate(yaml.safe_load(text)).services
    assert set(services) == {"sluiced", "prometheus", "grafana", "envoy"}
    assert "--auth_failures_per_minute=0" in services["sluiced"].command, "Envoy is one address"
    for service in yaml.safe_load(text)["services"].values():
        for volume in service["volumes"]:
            source = volume.split(":")[0]
            # A certificate is the operator's own.
            if source.startswith("./") and source != "./tls":
                assert (DEPLOY / source).exists(), source
        for port in service["ports"]:
            assert port.startswith("127.0.0.1:"), port
    # What Prometheus and Envoy look for is the service's name.
    scrape = yaml.safe_load((DEPLOY / "prometheus/prometheus.yml").read_text())["scrape_configs"][0]
    assert scrape["dns_sd_configs"][0]["names"] == ["sluiced"]


def unit():
    text = (DEPLOY / "systemd/sluiced.service").read_text()
    return text, dict(re.findall(r"^(\w+)=(.*)$", text, re.M))


def test_unit_verifies(tmp_path):
    """systemd's own check, with the daemon where this build put it."""
    text, settings = unit()
    file = tmp_path / "sluiced.service"
    file.write_text(text.replace("/usr/local/bin/sluiced", str((BIN / "sluiced").resolve())))
    done = subprocess.run(["systemd-analyze", "verify", "--man=no", file], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    security = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", "--threshold=20", file],
                              capture_output=True, text=True)
    overall = re.search(r"Overall exposure level for \S+: (\S+)", security.stdout)
    print(f"systemd-analyze security: exposure {overall.group(1)} of 10")
    assert security.returncode == 0, security.stdout


def test_unit_and_daemon_agree(tmp_path):
    _, settings = unit()
    assert int(settings["TimeoutStopSec"]) > 30 + 10 + 10
    flags = tmp_path / "sluiced.flags"
    assert settings["ExecStart"] == "/usr/local/bin/sluiced --flagfile=/etc/sluice/sluiced.flags"
    flags.write_text((DEPLOY / "systemd/sluiced.flags").read_text()
                     .replace("/usr/local/share/sluice/models/classics-12m", str(MODEL))
                     .replace("/var/lib/sluice", str(tmp_path / "sessions"))
                     .replace("127.0.0.1:50051", "127.0.0.1:0").replace("127.0.0.1:9464", "127.0.0.1:0")
                     .replace("127.0.0.1:8080", "127.0.0.1:0"))
    (tmp_path / "sessions").mkdir()
    daemon = Daemon(f"--flagfile={flags}")
    try:
        assert daemon.generate("The").only.finished
        assert int(settings["LimitNOFILE"]) > 2 * daemon.metrics()["sluice_limit{flag=max_connections}"]
        assert daemon.stop() == 0
    finally:
        daemon.kill()
