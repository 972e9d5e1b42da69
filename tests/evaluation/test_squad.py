"""``lumina eval squad``: its data, a run on embedded engines, and what it writes."""

from __future__ import annotations

import json
import zlib
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from langchain_core.embeddings import Embeddings
from typer.testing import CliRunner

import cli
from evaluation.asking import ask_lumina, index
from evaluation.outcomes import figures
from evaluation.plain_chain import ask_plain_chain
from evaluation.report import write_json, write_plot
from evaluation.squad import BadData, read_squad
from graphs.runs import Runner

Lumina = Callable[..., AbstractAsyncContextManager[Runner]]
SQUAD = Path(__file__).parents[3] / "shared" / "data" / "squad"

PARAGRAPHS = [
    ("Lighthouse", 0, "The Lindow lighthouse was built by Ada Thornbury in 1823. It stands 41 metres tall."),
    ("Lighthouse", 1, "Keepers rowed to the tower once a week. Storms kept them there for months."),
    ("Otter", 0, "Otters are carnivorous mammals. They eat fish and crabs. Their fur is very dense."),
]
QUESTIONS = [
    ("a", "Lighthouse", 0, "When was the Lindow lighthouse built?", ["1823", "in 1823"]),
    ("b", "Lighthouse", 1, "How often did keepers row to the tower?", ["once a week"]),
    ("c", "Otter", 0, "What do otters eat?", ["fish and crabs"]),
]
UNANSWERABLE: list[Any] = [("u", "Otter", 0, "Which quasar did Zwicky photograph?", [])]


def write(folder: Path, name: str, rows: list[Any]) -> None:
    keys = (
        ("title", "paragraph", "context")
        if name == "paragraphs"
        else (
            "id",
            "title",
            "paragraph",
            "question",
            "answers",
        )
    )
    lines = [json.dumps(dict(zip(keys, row, strict=True))) for row in rows]
    (folder / f"{name}.jsonl").write_text("\n".join(lines) + "\n", encoding="utf-8")


@pytest.fixture
def data(tmp_path: Path) -> Path:
    folder = tmp_path / "squad"
    folder.mkdir()
    write(folder, "paragraphs", PARAGRAPHS)
    write(folder, "questions", QUESTIONS)
    write(folder, "unanswerable", UNANSWERABLE)
    return folder


class Blocking(Embeddings):
    """Texts with common words have near vectors, through LangChain's interface."""

    def embed_documents(self, texts: list[str]) -> list[list[float]]:
        rows = []
        for text in texts:
            row = [0.01] * 64
            for word in text.lower().split():
                row[zlib.crc32(word.strip(".,?").encode()) % 64] += 1
            rows.append(row)
        return rows

    def embed_query(self, text: str) -> list[float]:
        return self.embed_documents([text])[0]


@pytest.mark.parametrize("retriever", ["hybrid", "dense", "sparse"])
async def test_every_question_is_asked_and_counted(lumina: Lumina, data: Path, retriever: Any) -> None:
    read = read_squad(data)
    seen: list[int] = []
    async with lumina() as runner:
        await index(runner.context, read, lambda done: None)
        asked = read.sample(None, 1)
        outcomes = await ask_lumina(runner.context, asked, retriever=retriever, phrase=False, progress=seen.append)
    assert seen == [1, 2, 3, 4]
    assert [one.id for one in outcomes] == ["a", "b", "c", "u"]
    found = figures(outcomes)
    assert found["recall@3"] == 1.0
    assert outcomes[0].best == "1823"
    assert outcomes[0].sentence == "The Lindow lighthouse was built by Ada Thornbury in 1823."
    assert outcomes[0].tokens_in == 0
    assert all(one.paragraph in one.found and len(set(one.found)) == len(one.found) for one in outcomes[:3])
    if retriever == "hybrid":
        assert (found["recall@1"], found["abstention_recall"], found["auroc"]) == (1.0, 1.0, 1.0)
        assert outcomes[0].cited == PARAGRAPHS[0][2]
        assert outcomes[3].answer == "I don't know."


async def test_the_plain_chain_is_asked_the_same(lumina: Lumina, data: Path) -> None:
    read = read_squad(data)
    async with lumina(answers=["In 1823.", "I don't know."]) as runner:
        context = replace(runner.context, embedder=Blocking())  # type: ignore[arg-type]  # all that the chain needs
        silent = await ask_plain_chain(context, read, read.sample(None, 1), phrase=False, progress=lambda done: None)
        spoken = await ask_plain_chain(context, read, read.sample(None, 1), phrase=True, progress=lambda done: None)
    assert figures(silent)["recall@3"] == 1.0
    assert figures(silent)["f1"] is None
    assert spoken[0].best == "In 1823."
    assert not spoken[0].abstained
    assert [one.abstained for one in spoken[1:]] == [True, True, True]
    assert figures(spoken)["exact_match"] == pytest.approx(1 / 3)
    assert (spoken[0].tokens_in, spoken[0].tokens_out) == (11, 7)


def test_a_sample_is_drawn_by_its_seed_and_keeps_the_shares(data: Path) -> None:
    write(data, "questions", [(f"a{n}", "Otter", 0, "What do otters eat?", ["fish"]) for n in range(75)])
    write(data, "unanswerable", [(f"u{n}", "Otter", 0, "What?", []) for n in range(25)])
    read = read_squad(data)
    drawn = read.sample(20, 7)
    assert [bool(one.answers) for one in drawn] == [True] * 15 + [False] * 5
    assert drawn == read.sample(20, 7) != read.sample(20, 8)
    assert len(read.sample(1000, 7)) == 100


@pytest.mark.parametrize(
    ("name", "text", "says"),
    [
        ("questions", "", "is empty"),
        ("questions", "{", "questions.jsonl:1"),
        ("questions", "[1]", "questions.jsonl:1"),
        ("questions", '{"id": "a", "title": "Otter", "paragraph": "x", "question": "?", "answers": []}', "paragraph"),
        ("questions", '{"id": "a", "title": "Owl", "paragraph": 0, "question": "?", "answers": ["x"]}', "«Owl»"),
        ("questions", '{"id": "a", "title": "Otter", "paragraph": 0, "question": "?", "answers": []}', "has no answer"),
        ("paragraphs", '{"title": "Otter", "paragraph": 0, "context": ""}', "context"),
        ("paragraphs", '{"title": "Otter", "paragraph": 0, "context": "a"}\n' * 2, "twice"),
    ],
)
def test_bad_data_is_named_with_its_line(data: Path, name: str, text: str, says: str) -> None:
    (data / f"{name}.jsonl").write_text(text, encoding="utf-8")
    with pytest.raises(BadData, match=says) as caught:
        read_squad(data)
    assert "\n" not in str(caught.value)


def test_no_folder_and_no_text_are_named_too(tmp_path: Path, data: Path) -> None:
    with pytest.raises(BadData, match="is no folder"):
        read_squad(tmp_path / "absent")
    (data / "questions.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(BadData, match="cannot be read"):
        read_squad(data)
    (data / "unanswerable.jsonl").unlink()
    write(data, "questions", QUESTIONS)
    assert read_squad(data).unanswerable == []


async def test_figures_are_written_and_drawn(lumina: Lumina, data: Path, tmp_path: Path) -> None:
    pytest.importorskip("matplotlib", reason="matplotlib draws it; it is not there")
    read = read_squad(data)
    async with lumina() as runner:
        await index(runner.context, read, lambda done: None)
        asked = read.sample(None, 1)
        outcomes = await ask_lumina(runner.context, asked, retriever="hybrid", phrase=False, progress=lambda done: None)
    systems = {"Lumina": figures(outcomes), "another": figures([])}
    write_json(tmp_path / "squad.json", {"seed": 1}, systems, {"Lumina": outcomes, "another": []})
    write_plot(tmp_path / "squad.png", systems, "four questions")
    kept = json.loads((tmp_path / "squad.json").read_text(encoding="utf-8"))
    assert kept["figures"]["Lumina"]["recall@1"] == 1.0
    assert len(kept["outcomes"]["Lumina"]) == 4
    assert (tmp_path / "squad.png").read_bytes().startswith(b"\x89PNG")


def test_bad_options_are_refused_before_anything_is_opened(tmp_path: Path) -> None:
    run = CliRunner().invoke
    assert run(cli.app, ["eval", "squad", "--data", str(tmp_path), "--sample", "0"]).exit_code == 2
    assert run(cli.app, ["eval", "squad", "--data", str(tmp_path), "--retriever", "magic"]).exit_code == 2
    missing = run(cli.app, ["eval", "squad", "--data", str(tmp_path / "absent"), "--no-plot"])
    assert isinstance(missing.exception, BadData)


@pytest.mark.slow
@pytest.mark.skipif(not SQUAD.exists(), reason="the shared questions are not here: ../shared/data/squad")
async def test_real_questions_are_answered_well_enough(lumina: Lumina) -> None:
    from models.embeddings import Embedder

    read = read_squad(SQUAD)
    kept = {("Geology", n) for n in range(100)} | {("Black Death", n) for n in range(100)}
    read = replace(
        read,
        paragraphs=[one for one in read.paragraphs if (one.title, one.paragraph) in kept],
        answerable=[one for one in read.answerable if (one.title, one.paragraph) in kept],
        unanswerable=[one for one in read.unanswerable if (one.title, one.paragraph) in kept],
    )
    async with Embedder() as embedder, lumina(embedder=embedder) as runner:
        await index(runner.context, read, lambda done: None)
        asked = read.sample(40, 3)
        outcomes = await ask_lumina(runner.context, asked, retriever="hybrid", phrase=False, progress=lambda done: None)
    found = figures(outcomes)
    floors = {"recall@1": 0.7, "recall@3": 0.85, "sentence": 0.6, "f1": 0.35, "auroc": 0.5}
    assert {name: found[name] for name in floors if (found[name] or 0) < floors[name]} == {}
