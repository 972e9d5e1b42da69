"""The encyclopaedia as LangChain tools: ``search_wikipedia`` and ``read_article``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from tools.splitter import plain_text
from tools.wikipedia.source import WikiSource

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool

ARTICLE_CHARS = 12_000
"""What ``read_article`` returns at most: about 3,000 tokens."""


class SearchArguments(BaseModel):
    """What ``search_wikipedia`` is called with."""

    text: Annotated[str, Field(min_length=1, description="A question or a few words.")]
    limit: Annotated[int, Field(ge=1, le=20, description="How many titles at most.")] = 5


class ReadArguments(BaseModel):
    """What ``read_article`` is called with."""

    title: Annotated[str, Field(min_length=1, description="Title of an article; redirects are followed.")]


def build_reading_tools(source: WikiSource) -> list[BaseTool]:
    """The two tools on an open encyclopaedia. They only read, and keep nothing."""
    from langchain_core.tools import StructuredTool  # a fifth of a second of imports

    async def search(text: str, limit: int = 5) -> str:
        titles = await source.search(text, limit)
        return "\n".join(titles) if titles else f"{source.name} has nothing on «{text}»."

    async def read(title: str) -> str:
        fetched = await source.fetch([title])
        if not fetched.pages:
            why = fetched.skipped.get(title, "no such article")
            near = await source.suggest(title)
            return f"«{title}»: {why}." + (f" Nearest titles: {', '.join(near)}." if near else "")
        page = fetched.pages[0]
        text = plain_text(page)
        cut = "\n[…]" if len(text) > ARTICLE_CHARS else ""
        return f"{page.title} (revision {page.revision}, {page.url})\n\n{text[:ARTICLE_CHARS]}{cut}"

    return [
        StructuredTool.from_function(
            coroutine=search,
            name="search_wikipedia",
            description=f"Titles of the articles of {source.name} that are about something, best first.",
            args_schema=SearchArguments,
        ),
        StructuredTool.from_function(
            coroutine=read,
            name="read_article",
            description=f"The text of one article of {source.name}, with its revision and address.",
            args_schema=ReadArguments,
        ),
    ]
