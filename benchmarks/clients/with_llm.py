"""The ``llm`` command; run by ``benchmarks/clients/drive.py`` in the clients' environment."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

llm = str(Path(sys.executable).with_name("llm"))
url = os.environ["LUMINA_URL"] + "/v1"
question, expected = os.environ["QUESTION"], os.environ["EXPECTED"]

with tempfile.TemporaryDirectory() as folder:
    names = {"lumina": "lumina", "behind": os.environ["CHAT_MODEL"]}
    models = [{"model_id": key, "model_name": name, "api_base": url} for key, name in names.items()]
    (Path(folder) / "extra-openai-models.yaml").write_text(json.dumps(models))  # JSON is YAML

    def run(*arguments: str) -> str:
        """What the command prints."""
        done = subprocess.run(
            [llm, *arguments],
            env={**os.environ, "LLM_USER_PATH": folder},
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    assert "lumina" in run("models")
    print("configured")
    assert expected in run("-m", "lumina", question)
    print("streamed the graph's answer")
    assert expected in run("-m", "lumina", "--no-stream", question)
    print("not streamed")
    assert run("-c", "Thanks, that helps.").strip()
    print("conversation continued")
    assert run("-m", "behind", "-o", "max_tokens", "8", "Say hi.").strip()
    print("chat model")
