"""The serializer of checkpoints: what Redis holds is data, and reading it never runs code."""

from __future__ import annotations

from typing import Any

from langgraph.checkpoint.serde.jsonplus import JsonPlusSerializer

PLAIN = frozenset({"null", "bytes", "bytearray", "msgpack"})
"""What ``dumps_typed`` writes. Older formats are not read: ``pickle`` runs code, and ``json`` constructs objects and
reads the environment (LangChain's ``secret``)."""


class StrictSerializer(JsonPlusSerializer):
    """LangGraph's msgpack in strict mode: an object of a type that is not on its list of safe ones comes back as the
    plain data it was made of.
    """

    def __init__(self) -> None:
        super().__init__(pickle_fallback=False, allowed_json_modules=None, allowed_msgpack_modules=None)

    def loads_typed(self, data: tuple[str, bytes]) -> Any:
        """The inverse of ``dumps_typed``.

        Raises:
            NotImplementedError: a format that it does not write.
        """
        if data[0] not in PLAIN:
            raise NotImplementedError(f"values of type {data[0]!r} are not read; known: {', '.join(sorted(PLAIN))}")
        return super().loads_typed(data)
