"""The manifests of deploy/kubernetes: what they name is there, and they fit what Lumina is."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from fastapi.routing import iter_route_contexts
from ruamel.yaml import YAML

from memory import keys
from server import create_app
from serving.roles import ROLES
from settings import Settings, load_settings

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / "deploy/kubernetes"
FILES = sorted(file for file in FOLDER.glob("*.yaml") if file.name != "kustomization.yaml")
Manifest = dict[str, Any]


def read(file: Path) -> list[Manifest]:
    return list(YAML(typ="safe", pure=True).load_all(file))


KUSTOMIZATION = read(FOLDER / "kustomization.yaml")[0]
MANIFESTS = [manifest for file in FILES for manifest in read(file)]
WORKLOADS = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] in ("Deployment", "StatefulSet")}
SERVICES = {one["metadata"]["name"]: one for one in MANIFESTS if one["kind"] == "Service"}


def pod(name: str) -> Manifest:
    found: Manifest = WORKLOADS[name]["spec"]["template"]["spec"]
    return found


def container(name: str) -> Manifest:
    (found,) = pod(name)["containers"]
    assert isinstance(found, dict)
    return found


OWN = [name for name in WORKLOADS if container(name)["image"] == "lumina"]
SERVING = {name: container(name)["args"][2] for name in OWN if container(name)["args"][0] == "serve"}
"""Workload → the role that it serves."""


def of_kind(kind: str) -> Iterator[Manifest]:
    found = [manifest for manifest in MANIFESTS if manifest["kind"] == kind]
    assert found, kind
    yield from found


def test_the_kustomization_has_every_file() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == [file.name for file in FILES]


def test_every_role_and_the_workers_are_there() -> None:
    assert sorted(SERVING.values()) == sorted(set(ROLES) - {"all"})
    assert set(OWN) - set(SERVING) == {"worker"}


@pytest.mark.parametrize("name", WORKLOADS)
def test_a_workload_is_found_by_its_label_and_mounts_what_there_is(name: str) -> None:
    spec = WORKLOADS[name]["spec"]
    labels = spec["template"]["metadata"]["labels"]
    assert spec["selector"]["matchLabels"] == labels == {"app.kubernetes.io/name": name}
    claims = [claim["metadata"]["name"] for claim in spec.get("volumeClaimTemplates", ())]
    volumes = [volume["name"] for volume in pod(name)["volumes"]] + claims
    assert sorted(volumes) == sorted(mount["name"] for mount in container(name)["volumeMounts"])
    if WORKLOADS[name]["kind"] == "StatefulSet":
        assert spec["serviceName"] in SERVICES


@pytest.mark.parametrize("name", WORKLOADS)
def test_no_container_is_root_or_writes_to_its_root(name: str) -> None:
    security, inside = pod(name)["securityContext"], container(name)["securityContext"]
    assert security["runAsNonRoot"] is True
    assert security["runAsUser"] > 0
    assert security["seccompProfile"] == {"type": "RuntimeDefault"}
    assert inside == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod(name)["automountServiceAccountToken"] is False
    assert "memory" in container(name)["resources"]["limits"]


@pytest.mark.parametrize("name", SERVING)
def test_a_role_listens_where_its_service_and_its_probes_ask(name: str) -> None:
    role, words = ROLES[SERVING[name]], container(name)["args"]
    port = int(words[words.index("--port") + 1]) if "--port" in words else role.port
    assert port == role.port
    assert container(name)["ports"] == [{"name": "http", "containerPort": port}]
    assert SERVICES[name]["spec"]["ports"] == [{"name": "http", "port": port, "targetPort": "http"}]
    routes: list[Any] = [each.route for each in iter_route_contexts(create_app(load_settings(), role=role).routes)]
    paths = {route.path for route in routes}
    for probe in ("startupProbe", "livenessProbe", "readinessProbe"):
        asked = container(name)[probe]["httpGet"]
        assert asked["port"] == "http"
        assert urlsplit(asked["path"]).path in paths


def test_who_holds_the_event_store_is_one_and_keeps_it_in_a_volume() -> None:
    (holder,) = [name for name, role in SERVING.items() if ROLES[role].events]
    assert WORKLOADS[holder]["kind"] == "StatefulSet", "which ends one pod before it begins the next"
    assert WORKLOADS[holder]["spec"]["replicas"] == 1
    assert WORKLOADS[holder]["spec"]["volumeClaimTemplates"]


def test_settings_exist_and_lead_to_services_that_exist() -> None:
    (given,) = [one["data"] for one in of_kind("ConfigMap")]
    assert {name.lower() for name in given} <= set(Settings.model_fields)
    settings = Settings.model_validate({name.lower(): value for name, value in given.items()})
    assert settings.redis_url
    assert settings.qdrant_url
    for url in (settings.redis_url.get_secret_value(), settings.qdrant_url):
        address = urlsplit(url)
        assert [one["port"] for one in SERVICES[str(address.hostname)]["spec"]["ports"]] == [address.port]
    for name in OWN:
        assert container(name)["envFrom"] == [{"configMapRef": {"name": "lumina"}}, {"secretRef": {"name": "lumina"}}]
        assert {"name": "data", "mountPath": given["DATA_DIR"]} in container(name)["volumeMounts"]
    assert not [one for one in MANIFESTS if one["kind"] == "Secret"], "secrets are not kept with the code"
    assert "create secret generic lumina" in (ROOT / "deploy/README.md").read_text()


def test_what_scales_or_guards_a_workload_names_one() -> None:
    (autoscaler,) = of_kind("HorizontalPodAutoscaler")
    assert autoscaler["spec"]["scaleTargetRef"]["name"] == "hub"
    (scaled,) = of_kind("ScaledObject")
    assert scaled["spec"]["scaleTargetRef"]["name"] == "worker"
    assert "replicas" not in WORKLOADS["hub"]["spec"], "an apply would undo what the autoscaler has decided"
    assert "replicas" not in WORKLOADS["worker"]["spec"]
    (trigger,) = scaled["spec"]["triggers"]
    asked = trigger["metadata"]
    assert trigger["type"] == "redis-streams"
    assert (asked["stream"], asked["consumerGroup"]) == (keys.TASKS_STREAM, keys.WORKERS_GROUP)
    host, _, port = asked["address"].partition(":")
    assert host == f"redis.{KUSTOMIZATION['namespace']}.svc.cluster.local"
    assert SERVICES["redis"]["spec"]["ports"][0]["port"] == int(port)
    for budget in of_kind("PodDisruptionBudget"):
        name = budget["metadata"]["name"]
        assert budget["spec"]["selector"]["matchLabels"] == {"app.kubernetes.io/name": name}
        assert name in WORKLOADS
    for policy in of_kind("NetworkPolicy"):
        assert policy["spec"]["podSelector"]["matchLabels"]["app.kubernetes.io/name"] in WORKLOADS


def test_images_and_health_checks_are_those_of_compose() -> None:
    compose = YAML(typ="safe", pure=True).load(ROOT / "deploy/compose.yaml")["services"]
    for name in set(WORKLOADS) - set(OWN):
        assert container(name)["image"] == compose[name]["image"]
    (image,) = KUSTOMIZATION["images"]
    assert f"{image['name']}:{image['newTag']}" == compose["hub-api"]["image"]
    assert container("worker")["livenessProbe"]["exec"]["command"] == compose["worker"]["healthcheck"]["test"][1:]


def test_the_manifests_fit_the_schemas_of_kubernetes() -> None:
    validator = shutil.which("kubernetes-validate") or ROOT / ".venv-manifests/bin/kubernetes-validate"
    if not os.access(validator, os.X_OK):
        pytest.skip("kubernetes-validate is not there; `make manifests` installs it and runs this")
    own = [str(file) for file in FILES if file.name != "keda.yaml"]  # KEDA brings its schema itself
    found = subprocess.run([str(validator), "--strict", *own], capture_output=True, text=True)
    assert found.returncode == 0, found.stdout + found.stderr
    assert "WARN" not in found.stdout + found.stderr


def test_kustomize_puts_them_together() -> None:
    if shutil.which("kubectl") is None:
        pytest.skip("kubectl is not there; it has kustomize in it")
    found = subprocess.run(["kubectl", "kustomize", str(FOLDER)], capture_output=True, text=True)
    assert found.returncode == 0, found.stderr
    assert len(list(YAML(typ="safe", pure=True).load_all(found.stdout))) == len(MANIFESTS)
