"""Clients that people use, each against a live ``lumina serve`` on the embedded engines; prints a table.

    make clients

Every ``with_<client>.py`` runs in the clients' own environment and prints a line for each thing that worked.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import httpx

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
QUESTION, EXPECTED = "Who proved that the Mandelbrot set is connected?", "Douady"
WEBUI = "open_webui"
NO_WEBUI = "skipped: it needs 3 GB in an environment of its own; `make clients-webui` installs it and tries it too"


@contextlib.contextmanager
def served() -> Iterator[str]:
    """A server with everything embedded and a memory of its own; its URL."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, (Path(folder) / "log").open("w+b") as log:
        url = f"http://127.0.0.1:{port}"
        command = [sys.executable, "cli.py", "serve", "--port", str(port)]
        environment = {**os.environ, "DATA_DIR": f"{folder}/data", "LLM_PROVIDER": "embedded"}
        process = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        try:
            deadline = time.monotonic() + 120
            while True:
                with contextlib.suppress(httpx.HTTPError):
                    httpx.get(f"{url}/v1/models", timeout=10, trust_env=False).raise_for_status()
                    break
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    raise SystemExit(f"lumina serve did not start: {log.read()[-2000:].decode(errors='replace')}")
                time.sleep(0.2)
            yield url
        finally:
            process.terminate()
            process.wait(30)


def version(python: Path, package: str) -> str:
    code = f"import importlib.metadata as m; print(m.version({package.replace('_', '-')!r}))"
    return subprocess.run([python, "-c", code], capture_output=True, text=True).stdout.strip() or "–"


def drive(python: Path, client: str, environment: dict[str, str]) -> dict[str, object]:
    """Run one client's script."""
    try:
        done = subprocess.run(
            [python, HERE / f"with_{client}.py"],
            env={**os.environ, **environment},
            capture_output=True,
            text=True,
            timeout=900,
        )
    except subprocess.TimeoutExpired as error:
        return {"client": client, "version": version(python, client), "tried": "", "passed": f"no: {error}"}
    tried = "; ".join(line for line in done.stdout.splitlines() if line)
    reason = done.stderr.strip().splitlines()[-1][:200] if done.stderr.strip() else f"exit {done.returncode}"
    passed = "yes" if done.returncode == 0 else f"no: {reason}"
    return {"client": client, "version": version(python, client), "tried": tried, "passed": passed}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--python", type=Path, required=True, help="of the clients' environment")
    parser.add_argument("--webui", type=Path, help="Python of Open WebUI's environment, where there is one")
    parser.add_argument("--json", type=Path)
    asked = parser.parse_args()
    clients = sorted(path.stem.removeprefix("with_") for path in HERE.glob("with_*.py"))
    with served() as url:
        listed = httpx.get(f"{url}/v1/models", trust_env=False).json()["data"]
        chat = next(model["id"] for model in listed if model["kind"] == "chat" and model["id"] == model["root"])
        embedding = next(model["id"] for model in listed if model["kind"] == "embeddings")
        environment = {
            "LUMINA_URL": url,
            "QUESTION": QUESTION,
            "EXPECTED": EXPECTED,
            "CHAT_MODEL": chat,
            "EMBEDDING_MODEL": embedding,
            "LITELLM_LOCAL_MODEL_COST_MAP": "True",  # else it fetches a list of prices
            "NO_PROXY": "127.0.0.1",
        }
        pythons = dict.fromkeys(clients, asked.python) | {WEBUI: asked.webui}
        rows = [drive(python, client, environment) for client, python in pythons.items() if python]
    if asked.webui is None:
        rows.append({"client": WEBUI, "version": "–", "tried": "", "passed": NO_WEBUI})
    print("| client | version | what was tried | passed |\n|---|---|---|---|")
    for row in rows:
        print(f"| {row['client']} | {row['version']} | {row['tried']} | {row['passed']} |")
    if asked.json:
        asked.json.write_text(json.dumps(rows, indent=1))
    if any(str(row["passed"]).startswith("no") for row in rows):
        raise SystemExit(1)


if __name__ == "__main__":
    main()
