"""The manifests by Kubernetes' schemas and those of custom resources, and by each other."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import jsonschema
import kubernetes_validate
import pytest
import yaml

from servingd import __version__
from tests.deploy.command_lines import FOR_THE_REST, configuration, stop_takes
from tests.deploy.kit import DEPLOY

FOLDER = DEPLOY / "kubernetes"
CUSTOM = yaml.safe_load(Path(__file__).with_name("custom_resources.yml").read_text())
NOT_RESOURCES = {"kustomization.yml", "gpu.yml", "prometheus-adapter.yml"}
FILES = sorted(f for f in FOLDER.rglob("*.yml") if f.name not in NOT_RESOURCES)
SETS = sorted(
    str(file.parent.relative_to(FOLDER))
    for file in FOLDER.rglob("kustomization.yml")
    if file.parent.parent.name != "components"
)
SUPPORTED = ("1.35", "1.37")
"""Releases of Kubernetes: those with schemas on hand that are oldest and newest."""


def read(path: str) -> dict:
    return yaml.safe_load((FOLDER / path).read_text())


def check(resource: dict) -> None:
    """Fail if there is a field that Kubernetes, or the custom resource's project, does not know."""
    kind = f"{resource['apiVersion']} {resource['kind']}"
    if kind not in CUSTOM:
        for release in SUPPORTED:
            kubernetes_validate.validate(resource, release, strict=True)
        return
    assert set(resource) == {"apiVersion", "kind", "metadata", "spec"}
    schema = {"type": "object", "additionalProperties": False, **CUSTOM[kind]}
    jsonschema.Draft202012Validator(schema).validate(resource["spec"])
    if "containers" in resource["spec"]:
        pod = {key: resource["spec"][key] for key in ("containers", "volumes")}
        check({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "x"}, "spec": pod})


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(FOLDER)))
def test_a_resource_is_what_its_schema_says(file: Path) -> None:
    check(yaml.safe_load(file.read_text()))


def test_slips_are_seen() -> None:
    wrong = read("kserve/cluster-serving-runtime.yml")
    wrong["spec"]["containers"][0]["readynessProbe"] = {}
    with pytest.raises(kubernetes_validate.ValidationError):
        check(wrong)
    wrong = read("routes/http-route.yml")
    wrong["spec"]["rules"][0]["backendRef"] = []
    with pytest.raises(jsonschema.ValidationError):
        check(wrong)


def built(folder: Path) -> list[dict]:
    """The resources that kustomize makes of a folder."""
    if shutil.which("kustomize"):
        command = ["kustomize", "build"]
    elif shutil.which("kubectl"):
        command = ["kubectl", "kustomize"]
    else:
        pytest.skip("neither kustomize nor kubectl is installed")
    done = subprocess.run(
        [*command, folder], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    return list(yaml.safe_load_all(done.stdout))


@pytest.mark.parametrize("name", SETS)
def test_kustomize_makes_resources(name: str) -> None:
    for resource in built(FOLDER / name):
        check(resource)
        if resource["kind"] == "Deployment" and name != "base":
            (container,) = resource["spec"]["template"]["spec"]["containers"]
            tag = __version__ + ("-gpu" if name == "overlays/gpu" else "")
            assert container["image"] == f"servingd:{tag}"


def test_components_go_with_an_overlay(tmp_path) -> None:
    shutil.copytree(FOLDER, tmp_path / "kubernetes")
    file = tmp_path / "kubernetes" / "overlays" / "cpu" / "kustomization.yml"
    components = ["../../components/monitoring", "../../components/autoscaling"]
    file.write_text(file.read_text() + yaml.safe_dump({"components": components}))
    resources = {resource["kind"]: resource for resource in built(file.parent)}
    assert {"ServiceMonitor", "HorizontalPodAutoscaler"} < set(resources)
    for resource in resources.values():
        check(resource)
    monitored = resources["ServiceMonitor"]["spec"]
    labels = resources["Service"]["metadata"]["labels"]
    assert monitored["selector"]["matchLabels"].items() <= labels.items()
    assert labels[monitored["jobLabel"]] == "servingd"  # the job that the alerts know
    scaled = resources["HorizontalPodAutoscaler"]["spec"]["scaleTargetRef"]
    assert scaled["name"] == resources["Deployment"]["metadata"]["name"]


def test_servers_and_canaries_are_told_apart_and_get_calls_by_weight() -> None:
    pods, services = {}, {}
    for name in ("cpu", "canary"):
        for resource in built(FOLDER / "overlays" / name):
            if resource["kind"] == "Deployment":
                pods[name] = resource["spec"]["template"]["metadata"]["labels"]
            if resource["kind"] == "Service":
                services[resource["metadata"]["name"]] = resource["spec"]
    reached = {
        service: [name for name in pods if spec["selector"].items() <= pods[name].items()]
        for service, spec in services.items()
    }
    assert reached == {"servingd": ["cpu"], "servingd-canary": ["canary"]}
    for file, port_name in (("http-route.yml", "http"), ("grpc-route.yml", "grpc")):
        for rule in read(f"routes/{file}")["spec"]["rules"]:
            for backend in rule["backendRefs"]:
                ports = {p["name"]: p["port"] for p in services[backend["name"]]["ports"]}
                assert backend["port"] == ports[port_name]
            assert sum(backend["weight"] for backend in rule["backendRefs"]) == 100


DEPLOYMENT = read("base/deployment.yml")["spec"]["template"]["spec"]
RUNTIME = read("kserve/cluster-serving-runtime.yml")["spec"]
PODS = pytest.mark.parametrize(
    "pod",
    [DEPLOYMENT, {**RUNTIME, "terminationGracePeriodSeconds": 30}],  # the default, in KServe
    ids=["deployment", "kserve"],
)


@PODS
def test_a_pod_has_the_time_to_drain(pod: dict) -> None:
    (container,) = pod["containers"]
    takes = stop_takes(configuration(container["args"]))
    assert pod["terminationGracePeriodSeconds"] >= takes + FOR_THE_REST


@PODS
def test_a_container_can_do_little(pod: dict) -> None:
    (container,) = pod["containers"]
    context = {**pod.get("securityContext", {}), **container["securityContext"]}
    assert context["runAsNonRoot"]
    assert f"USER {context['runAsUser']}:" in (DEPLOY.parent / "Dockerfile").read_text()
    assert context["readOnlyRootFilesystem"]
    assert not context["allowPrivilegeEscalation"]
    assert context["capabilities"] == {"drop": ["ALL"]}
    assert context["seccompProfile"] == {"type": "RuntimeDefault"}


@PODS
def test_flags_ports_and_volumes_fit(pod: dict) -> None:
    (container,) = pod["containers"]
    config = configuration(container["args"])
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    for probe in ("livenessProbe", "readinessProbe"):
        asked = container[probe]["httpGet"]["port"]
        assert ports.get(asked, asked) == config.rest_api_port
    assert ports.get("grpc", config.port) == config.port
    mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
    assert set(mounts.values()) == {volume["name"] for volume in pod["volumes"]}
    (cache,) = (v["value"] for v in container["env"] if v["name"] == "SERVINGD_CACHE_DIR")
    assert str(Path(cache).parent) in mounts
    assert "/tmp" in mounts


def test_kserve_prefers_it_to_its_own_tensorflow_serving() -> None:
    formats = RUNTIME["supportedModelFormats"]
    assert {(f["name"], f["version"]) for f in formats} == {
        ("tensorflow", "1"),
        ("tensorflow", "2"),
    }
    assert all(f["autoSelect"] and f["priority"] > 2 for f in formats)
    assert set(RUNTIME["protocolVersions"]) == {"v1", "v2", "grpc-v1", "grpc-v2"}
    port = RUNTIME["annotations"]["prometheus.kserve.io/port"]
    assert int(port) == configuration(RUNTIME["containers"][0]["args"]).rest_api_port
