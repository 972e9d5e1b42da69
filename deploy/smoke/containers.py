"""A deployment through deploy/compose.yaml."""

from __future__ import annotations

import json
import os
import secrets
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from deploy.smoke.deployment import ROOT, Deployment
from deploy.smoke.report import SmokeFailed

OURS = ("hub-api", "graph-api", "event-mux", "masterchat", "indexer", "worker")
COMPOSED = ("redis", "qdrant", *OURS)
"""Services of compose.yaml that the test needs."""
WATCHING = ("prometheus", "alertmanager")


@contextmanager
def compose(
    ports: dict[str, int],
    files: Sequence[str] = (),
    without: Sequence[str] = (),
    *,
    build: bool = True,
    watched: bool = False,
) -> Iterator[Deployment]:
    """The same through compose.yaml, in a project of its own whose volumes go at the end.

    Args:
        ports: Where the roles are published.
        files: Compose files that change something of compose.yaml.
        without: Services that are left out.
        build: Whether the image is built; else the one that is there is used.
        watched: Whether Prometheus and Alertmanager are started, too.
    """
    engines = [["docker", "compose"], ["docker-compose"], ["podman-compose"]]
    engine = next((one for one in engines if _answers([*one, "version"])), None)
    if engine is None:
        raise SmokeFailed("neither docker compose, docker-compose nor podman-compose answers; try --local")
    key = secrets.token_urlsafe(16)
    with tempfile.TemporaryDirectory(prefix="lumina-smoke-") as folder:
        env_file = Path(folder) / "env"
        env_file.write_text(f"LUMINA_API_KEYS=smoke:{key}\nLLM_PROVIDER=embedded\n")
        # No Ollama, whose model would have to be fetched first.
        changes: dict[str, Any] = {name: {"environment": {"OLLAMA_URL": ""}} for name in OURS}
        if watched:
            changes["prometheus"] = {"volumes": [f"{_prometheus_files(Path(folder), key)}:/etc/prometheus:ro"]}
        override = Path(folder) / "smoke.yaml"
        override.write_text(json.dumps({"services": changes}))  # JSON is YAML
        published = {f"{role.replace('-', '_').upper()}_PORT": str(port) for role, port in ports.items()}
        # PYTHONPATH is this program's own (smoke.sh), and podman-compose is Python, too.
        inherited = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        env = {**inherited, **published, "LUMINA_ENV_FILE": str(env_file)}
        command = [*engine, "-p", "lumina-smoke", "-f", str(ROOT / "deploy/compose.yaml")]
        command += [word for file in (str(override), *files) for word in ("-f", str(Path(file).resolve()))]
        services = [name for name in (*COMPOSED, *(WATCHING if watched else ())) if name not in without]
        try:
            if subprocess.run([*command, "up", "-d", *(["--build"] if build else []), *services], env=env).returncode:
                raise SmokeFailed(f"`{' '.join(command)} up` failed")
            yield Deployment(ports, key, lambda: None)
        except SmokeFailed:
            subprocess.run([*command, "logs", "--tail", "20"], env=env)
            raise
        finally:
            subprocess.run([*command, "down", "-v", "-t", "20"], env=env)


def _prometheus_files(folder: Path, key: str) -> Path:
    """Its configuration as it is in deploy/, and the key beside it."""
    copy = shutil.copytree(ROOT / "deploy/prometheus", folder / "prometheus")
    (copy / "lumina_api_key").write_text(key)
    for path in (copy, *copy.iterdir()):  # the image's user is another one
        path.chmod(0o755 if path.is_dir() else 0o644)
    return copy


def _answers(command: list[str]) -> bool:
    try:
        return subprocess.run(command, capture_output=True, timeout=30).returncode == 0
    except (OSError, subprocess.TimeoutExpired):
        return False
