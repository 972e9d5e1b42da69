"""The child process that serves a GGUF file: llama.cpp's OpenAI-compatible server on loopback.

Started by ``models.embedded`` as ``python -m models.llama_server``. Standard input takes one line of JSON (the fields
of ``Request``) and then stays open: when it ends, the parent is gone, by whatever death, and the child goes too.
Standard output gives one line of JSON, ``{"url": …}``, once the model is loaded. What llama.cpp says goes to standard
error.
"""

from __future__ import annotations

import json
import os
import select
import sys
import threading
from typing import NoReturn, TypedDict

_PARENT_CHECK_S = 2.0
"""A process that the parent forked may keep our standard input open after the parent's death; so look for it, too."""


class Request(TypedDict):
    """What the parent asks for."""

    gguf_path: str
    model_id: str
    key: str
    """Callers must send it as a bearer token, so that no other user of the machine uses the model."""
    threads: int
    context_tokens: int
    parallel: int


def _leave_with(parent: int) -> NoReturn:
    while os.getppid() == parent:
        readable, _, _ = select.select([0], [], [], _PARENT_CHECK_S)
        if readable and not os.read(0, 1024):
            break
    # llama.cpp's orderly end waits for answers under way; nobody reads them any more.
    os._exit(0)


def main() -> None:
    """Serve until standard input ends."""
    parent = os.getppid()
    reply = os.dup(1)
    os.dup2(2, 1)
    request: Request = json.loads(sys.stdin.buffer.readline())
    threading.Thread(target=_leave_with, args=(parent,), daemon=True).start()

    import xllamacpp

    params = xllamacpp.CommonParams()
    params.model.path = request["gguf_path"]
    params.model_alias = {request["model_id"]}
    params.hostnames = ["127.0.0.1"]
    params.port = 0
    params.api_keys = [request["key"]]
    params.ui = False
    params.n_ctx = request["context_tokens"]
    params.n_parallel = request["parallel"]
    params.kv_unified = True
    params.cache_ram_mib = 0  # otherwise it keeps old prompts, up to gigabytes of them
    params.cpuparams.n_threads = params.cpuparams_batch.n_threads = request["threads"]
    server = xllamacpp.Server(params)

    os.write(reply, json.dumps({"url": server.listening_address}).encode() + b"\n")
    os.close(reply)
    threading.Event().wait()


if __name__ == "__main__":
    main()
