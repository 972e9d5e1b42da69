"""Open WebUI: the server itself on a folder of its own, asked through its API as its page does.

It lists Lumina's models, answers a question with the whole graph, whole and streamed, and makes a title for the chat,
which must not run the graph.
"""

import contextlib
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import httpx

URL, QUESTION, EXPECTED = (os.environ[name] for name in ("LUMINA_URL", "QUESTION", "EXPECTED"))
START_S = 300
SETTINGS = {
    "OPENAI_API_BASE_URL": f"{URL}/v1",
    "OPENAI_API_KEY": "any",
    "ENABLE_OLLAMA_API": "False",
    "WEBUI_AUTH": "False",
    "OFFLINE_MODE": "True",
    "HF_HUB_OFFLINE": "1",
    "RAG_EMBEDDING_ENGINE": "openai",  # else it looks for a model to download
    "ANONYMIZED_TELEMETRY": "False",
    "DO_NOT_TRACK": "True",
}


def main() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryDirectory() as folder, Path(folder, "log").open("wb") as log:
        program = Path(sys.executable).with_name("open-webui")
        environment = {**os.environ, **SETTINGS, "DATA_DIR": folder, "WEBUI_SECRET_KEY": "only-here"}
        command = [program, "serve", "--host", "127.0.0.1", "--port", str(port)]
        process = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=300, trust_env=False) as page:
                wait_for(page, process, Path(folder, "log"))
                drive(page)
        finally:
            process.terminate()
            process.wait(30)


def wait_for(page: httpx.Client, process: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline and process.poll() is None:
        with contextlib.suppress(httpx.HTTPError):
            if page.get("/health", timeout=5).status_code == 200:
                return
        time.sleep(1)
    raise SystemExit(f"Open WebUI did not start: {log.read_text(errors='replace')[-1000:]}")


def drive(page: httpx.Client) -> None:
    signed_in = page.post("/api/v1/auths/signin", json={"email": "", "password": ""}).raise_for_status().json()
    page.headers["Authorization"] = f"Bearer {signed_in['token']}"
    models = [one["id"] for one in page.get("/api/models").raise_for_status().json()["data"]]
    assert {"lumina", "lumina-qa"} <= set(models), models
    print(f"lists {len(models)} models")
    asked = {"model": "lumina", "messages": [{"role": "user", "content": QUESTION}]}
    whole = page.post("/api/chat/completions", json={**asked, "stream": False}).raise_for_status().json()
    assert EXPECTED in whole["choices"][0]["message"]["content"], whole
    print("answers with the graph")
    with page.stream("POST", "/api/chat/completions", json={**asked, "stream": True}) as answer:
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert EXPECTED in "".join(lines)
    assert lines[-1] == "data: [DONE]"
    print(f"streams ({len(lines)} chunks)")
    titled = page.post("/api/v1/tasks/title/completions", json=asked).raise_for_status().json()
    assert "lumina" not in titled.get("model", "").split("-"), "a title ran the graph"
    print("makes a title without the graph")


main()
