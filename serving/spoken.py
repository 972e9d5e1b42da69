"""What a run has said, so that an agent that begins again does not say it to the client twice."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from graphs.runs import RunEvent

ONCE = ("citation", "usage")
"""Kinds of which the same is told once."""


class Spoken:
    """Lets a run's events through, but not the words of an agent that were heard before.

    An agent begins a goal again after a failure, or when its run was interrupted and goes on from the last checkpoint.
    While its words are those that it said before, they are held back. Once they differ, the event ``restart`` takes the
    earlier ones back, and its citations, and the new ones follow.
    """

    interrupted = False
    """Set when words may be missing, for their process died: what was said is then compared with the answer."""

    def __init__(self) -> None:
        self._goals: dict[str, str] = {}
        self._said: dict[tuple[str, str], str] = {}
        self._again: dict[tuple[str, str], str] = {}
        self._told: list[RunEvent] = []

    def admit(self, event: RunEvent) -> list[RunEvent]:
        """The events that this one becomes."""
        agent = str(event.data.get("agent", ""))
        if event.kind == "agent":
            return [*self._agent(agent, event), event]
        if event.kind == "token":
            return self._token((agent, self._goals.get(agent, "")), event)
        if event.kind == "restart":
            self._forget(agent)
        elif event.kind == "done" and self.interrupted:
            return [*self._mend(event.data.get("reply") or {}), event]
        elif event.kind in ONCE:
            if event in self._told:
                return []
            self._told.append(event)
        return [event]

    def _agent(self, agent: str, event: RunEvent) -> list[RunEvent]:
        state, key = event.data.get("state"), (agent, str(event.data.get("goal", "")))
        if state == "start":
            self._goals[agent] = key[1]
            if self._said.get(key):
                self._again[key] = ""
            return []
        unfinished = self._again.pop(key, None)
        if state == "failed" or unfinished is None:
            return []
        return self._restart(key, unfinished)  # it ended and had said less than before

    def _token(self, key: tuple[str, str], event: RunEvent) -> list[RunEvent]:
        text = str(event.data.get("text", ""))
        said = self._said.get(key, "")
        if key not in self._again:
            self._said[key] = said + text
            return [event]
        again = self._again[key] = self._again[key] + text
        if said.startswith(again):
            if again == said:
                del self._again[key]
            return []
        del self._again[key]
        if again.startswith(said):
            self._said[key] = again
            return [RunEvent("token", {**event.data, "text": again[len(said) :]})]
        return self._restart(key, again)

    def _mend(self, reply: Mapping[str, Any]) -> list[RunEvent]:
        """What has to be said for the client to have the whole answer."""
        answer = str(reply.get("answer", ""))
        missing: list[RunEvent] = []
        if answer.strip() != "".join(self._said.values()).strip():
            agents = dict.fromkeys(agent for agent, _ in self._said)
            missing = [event for agent in agents for event in self._restart((agent, ""), "")]
            missing.append(RunEvent("token", {"agent": "", "text": answer}))
        citations = [RunEvent("citation", cited) for cited in reply.get("citations") or []]
        return missing + [event for event in citations if event not in self._told]

    def _restart(self, key: tuple[str, str], text: str) -> list[RunEvent]:
        agent = key[0]
        self._forget(agent)
        self._said[key] = text
        words = [RunEvent("token", {"agent": agent, "text": text})] if text else []
        return [RunEvent("restart", {"agent": agent}), *words]

    def _forget(self, agent: str) -> None:
        self._said = {key: text for key, text in self._said.items() if key[0] != agent}
        self._told = [event for event in self._told if event.kind != "citation"]
