"""Requests that chat programs send behind the user's back: titles, tags, follow-ups, search queries for a chat.

They come to the model that the user chats with, in a request of their own. They are about a conversation and no part of
it, so they need neither the graph nor a place in memory. They are known by how they begin:

- Open WebUI (``backend/open_webui/config.py``): its task templates begin with ``### Task:``, and hold the chat between
  ``<chat_history>`` tags or ask for completions or an emoji. The template of its retrieval begins likewise, but carries
  the user's own question in a ``<context>``: that one is a message.
- LibreChat (``@librechat/agents``, ``utils/title.ts``): one fixed sentence asks for a title.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from serving.openai.wire import Message

_OPEN_WEBUI = re.compile(r"\s*### Task:\s")
_ABOUT_A_CHAT = re.compile(r"<chat_history>|You are an autocompletion system")
_FIXED = re.compile(
    r"\s*(?:"
    r"Provide a concise, 5-word-or-less title for the conversation"
    r"|Analyze this conversation and provide:\s*1\. The detected language"
    r"|Please generate a concise title \(max 40 characters\) for a conversation"
    r"|Your task is to reflect the speaker's likely facial expression through a fitting emoji"
    r"|Create a concise, 3-5 word (?:title|phrase)"
    r")"
)
_LONGEST_OPENING = 4_000
"""Characters in which the signs must stand; the chat itself may be long and say anything."""


def is_side_prompt(messages: Sequence[Message]) -> bool:
    """Whether the last message is such a request."""
    last = messages[-1]
    if last.role != "user":
        return False
    text = last.text
    if _FIXED.match(text):
        return True
    return bool(_OPEN_WEBUI.match(text) and _ABOUT_A_CHAT.search(text) and "<context>" not in text[:_LONGEST_OPENING])
