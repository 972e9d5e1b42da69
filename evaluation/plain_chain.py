"""The chain that LangChain's tutorials build: split, embed, keep in memory, the four nearest into one prompt.

It has the same embedder and the same chat model as Lumina, and nothing else of it.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from importlib.util import find_spec

from langchain_core.documents import Document
from langchain_core.messages import AIMessage
from langchain_core.prompts import ChatPromptTemplate
from langchain_core.vectorstores import InMemoryVectorStore

from agents.context import Context
from evaluation.outcomes import DEPTH, Key, Outcome
from evaluation.squad import Question, Squad

TOP = 4
"""LangChain's default ``k``."""
SPARE = 3
"""So many chunks a paragraph are looked at, for a paragraph in pieces is counted once."""
PROMPT = ChatPromptTemplate.from_template(
    "Answer the question in a few words, based only on the following context. If it does not say, answer: I don't know."
    "\n\n{context}\n\nQuestion: {question}\nAnswer:"
)
ANSWER_TOKENS = 48


def splitter_in_use() -> str:
    """What cuts the paragraphs, in words."""
    if find_spec("langchain_text_splitters"):
        return "RecursiveCharacterTextSplitter with its defaults"
    return "none (langchain-text-splitters is not installed): whole paragraphs"


def documents(squad: Squad) -> list[Document]:
    """The paragraphs, cut by LangChain's default splitter where it is installed."""
    whole = [
        Document(one.context, metadata={"title": one.title, "paragraph": one.paragraph}) for one in squad.paragraphs
    ]
    if not find_spec("langchain_text_splitters"):
        return whole
    from langchain_text_splitters import RecursiveCharacterTextSplitter  # optional

    cut: list[Document] = RecursiveCharacterTextSplitter().split_documents(whole)
    return cut


async def ask_plain_chain(
    context: Context, squad: Squad, questions: Sequence[Question], *, phrase: bool, progress: Callable[[int], None]
) -> list[Outcome]:
    """Ask each question, one after the other; without ``phrase`` only what is found, for there is no answer then."""
    store = InMemoryVectorStore(context.embedder)
    await store.aadd_documents(documents(squad))
    outcomes = []
    for number, one in enumerate(questions, 1):
        start = time.perf_counter()
        found = await store.asimilarity_search_with_score(one.question, k=DEPTH * SPARE)
        said = None
        if phrase:
            shown = "\n\n".join(document.page_content for document, _ in found[:TOP])
            messages = PROMPT.format_messages(context=shown, question=one.question)
            said = await context.chat.model.bind(max_tokens=ANSWER_TOKENS).ainvoke(messages)
        seconds = time.perf_counter() - start
        outcomes.append(_outcome(one, found, said, seconds))
        progress(number)
    return outcomes


def _outcome(one: Question, found: list[tuple[Document, float]], said: AIMessage | None, seconds: float) -> Outcome:
    keys: list[Key] = [(document.metadata["title"], document.metadata["paragraph"]) for document, _ in found]
    answer = said.text.strip() if said else None
    usage = said.usage_metadata if said else None
    return Outcome(
        id=one.id,
        question=one.question,
        answers=one.answers,
        paragraph=(one.title, one.paragraph),
        found=list(dict.fromkeys(keys))[:DEPTH],
        best=answer,
        sentence=None,
        answer=answer,
        cited=None,
        abstained=answer is not None and "don't know" in answer.lower().replace("’", "'"),
        confidence=found[0][1] if found else 0.0,
        seconds=seconds,
        tokens_in=usage["input_tokens"] if usage else 0,
        tokens_out=usage["output_tokens"] if usage else 0,
    )
