"""Writes the table of docs/configuration.md: ``python docs/hooks/settings_table.py``; a test compares.

Names, texts and defaults come from ``.env.example``, what is accepted from ``Settings``.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path
from types import UnionType
from typing import Any, Literal, get_args, get_origin

from pydantic import SecretStr
from pydantic.fields import FieldInfo

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "configuration.md"
BEGIN, END = "<!-- settings:begin -->\n", "<!-- settings:end -->"
KINDS: dict[Any, str] = {int: "whole number", float: "number", bool: "true or false", Path: "path", SecretStr: "secret"}


def settings_table(fields: dict[str, FieldInfo], example: str) -> str:
    """One table a section of the example file.

    Args:
        fields: ``Settings.model_fields``.
        example: The text of ``.env.example``.
    """
    lines: list[str] = []
    said: list[str] = []
    for line in example.splitlines():
        if heading := re.fullmatch(r"# --- (.+?) -{3,}", line):
            title = heading[1].partition(":")[0].capitalize()
            lines += ["", f"## {title}", "", "| variable | default | accepted | |", "|---|---|---|---|"]
            said = []
        elif line.startswith("#"):
            said.append(line.removeprefix("#").strip())
        elif assigned := re.fullmatch(r"([A-Z_]+)=(.*)", line):
            name, default = assigned[1], assigned[2].strip('"')
            row = [f"`{name}`", f"`{default}`" if default else "unset", accepted(fields[name.lower()]), _text(said)]
            lines.append("| " + " | ".join(row) + " |")
            said = []
    return "\n".join(lines).strip() + "\n\n"


def accepted(field: FieldInfo) -> str:
    """What a variable takes, in words."""
    kinds = get_args(field.annotation) if isinstance(field.annotation, UnionType) else (field.annotation,)
    kind = next(kind for kind in kinds if kind is not type(None))
    if get_origin(kind) is Literal:
        return ", ".join(f"`{choice}`" for choice in get_args(kind))
    signs = {"ge": "from", "gt": "above", "le": "to", "lt": "below"}
    bounds = [
        f"{word} {getattr(rule, sign)}"
        for rule in field.metadata
        for sign, word in signs.items()
        if hasattr(rule, sign)
    ]
    return " ".join([KINDS.get(kind, "text"), *bounds])


def filled(page: str, table: str) -> str:
    """The page with this table in it."""
    before, _, rest = page.partition(BEGIN)
    return before + BEGIN + table + END + rest.partition(END)[2]


def _text(said: list[str]) -> str:
    text = " ".join(said).replace("|", "\\|")
    return re.sub(r'(\{".*\})', r"`\1`", text)


if __name__ == "__main__":
    sys.path.insert(0, str(ROOT))
    from settings import Settings

    found = settings_table(Settings.model_fields, (ROOT / ".env.example").read_text(encoding="utf-8"))
    PAGE.write_text(filled(PAGE.read_text(encoding="utf-8"), found), encoding="utf-8")
