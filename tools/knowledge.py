"""The knowledge graph as a LangChain tool: ``look_up_neighbours``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

from pydantic import BaseModel, Field

from memory.graph import GraphStore, UnknownNode, node_id

if TYPE_CHECKING:
    from langchain_core.tools import BaseTool


class NeighbourArguments(BaseModel):
    """What ``look_up_neighbours`` is called with."""

    title: Annotated[str, Field(min_length=1, description="Title of a page that was read.")]
    depth: Annotated[int, Field(ge=1, le=3, description="How many links away.")] = 1


def build_knowledge_tool(graph: GraphStore, owner: str) -> BaseTool:
    """The tool on one owner's graph."""
    from langchain_core.tools import StructuredTool  # a fifth of a second of imports

    async def neighbours(title: str, depth: int = 1) -> str:
        try:
            found = await graph.neighbours(owner, node_id(title), depth=depth)
        except UnknownNode as error:
            return str(error)
        names = {node.id: node.title for node in found.nodes}
        lines = [
            f"{names.get(edge.source, edge.source)} —{edge.type}→ {names.get(edge.target, edge.target)}"
            for edge in found.edges
        ]
        return "\n".join(lines) if lines else f"«{title}» has no neighbours yet."

    return StructuredTool.from_function(
        coroutine=neighbours,
        name="look_up_neighbours",
        description="What a page of the knowledge graph is linked with: one line for each link.",
        args_schema=NeighbourArguments,
    )
