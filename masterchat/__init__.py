"""The Python client of a Lumina server. It needs httpx and nothing else of the application.

Example:
    async with MasterChat("http://127.0.0.1:8000") as client:
        response = await client.chat(message="Who proved that the Mandelbrot set is connected?", mode="wiki_qa")
        async for chunk in response:
            print(chunk.content, end="")
        print(response.citations)
"""

from masterchat.blocking import ChatStreamSync, MasterChatSync
from masterchat.chat import ChatStream
from masterchat.client import MasterChat
from masterchat.exceptions import MasterChatError, Refused, RunFailed, Unreachable
from masterchat.records import (
    AgentChunk,
    Chunk,
    Citation,
    CitationChunk,
    Conversation,
    ConversationPage,
    DoneChunk,
    LogEvent,
    Message,
    PlanChunk,
    ProgressChunk,
    Recalled,
    RestartChunk,
    Task,
    TaskPage,
    TokenChunk,
    Usage,
    UsageChunk,
)

__all__ = [
    "AgentChunk",
    "ChatStream",
    "ChatStreamSync",
    "Chunk",
    "Citation",
    "CitationChunk",
    "Conversation",
    "ConversationPage",
    "DoneChunk",
    "LogEvent",
    "MasterChat",
    "MasterChatError",
    "MasterChatSync",
    "Message",
    "PlanChunk",
    "ProgressChunk",
    "Recalled",
    "Refused",
    "RestartChunk",
    "RunFailed",
    "Task",
    "TaskPage",
    "TokenChunk",
    "Unreachable",
    "Usage",
    "UsageChunk",
]
