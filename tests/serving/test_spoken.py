"""What an agent that begins again may say to the client."""

from __future__ import annotations

import pytest

from graphs.runs import RunEvent
from serving.spoken import Spoken

START = RunEvent("agent", {"agent": "qa", "state": "start", "goal": "replied"})
END = RunEvent("agent", {"agent": "qa", "state": "done", "goal": "replied"})


def said(*texts: str) -> list[RunEvent]:
    return [RunEvent("token", {"agent": "qa", "text": text}) for text in texts]


def heard(spoken: Spoken, *events: RunEvent) -> str:
    """What a client shows: its text, emptied at each restart."""
    text = ""
    for event in [admitted for one in events for admitted in spoken.admit(one)]:
        if event.kind == "restart":
            text = "↺"
        elif event.kind == "token":
            text += event.data["text"]
    return text


@pytest.mark.parametrize(
    ("again", "shown"),
    [
        (["a ", "b ", "c"], "a b c"),
        (["a b", " c d"], "a b c d"),
        (["a ", "x"], "↺a x"),
        (["x"], "↺x"),
        (["a "], "↺a "),
        ([], "↺"),
    ],
)
def test_the_same_words_are_said_once_and_others_replace_them(again: list[str], shown: str) -> None:
    assert heard(Spoken(), START, *said("a ", "b "), START, *said(*again), END) == shown


def test_a_third_start_is_compared_with_what_the_client_has() -> None:
    spoken = Spoken()
    first = heard(spoken, START, *said("a "), START, *said("b "))
    assert first == "↺b "
    assert heard(spoken, START, *said("b ", "c"), END) == "c"


def test_another_goal_of_the_same_agent_is_no_repetition() -> None:
    other = RunEvent("agent", {"agent": "qa", "state": "start", "goal": "answered"})
    assert heard(Spoken(), START, *said("a"), END, other, *said("a"), END) == "aa"


def test_a_citation_is_told_once_and_again_after_a_restart() -> None:
    spoken, cited = Spoken(), RunEvent("citation", {"number": 1})
    assert spoken.admit(cited) == [cited]
    assert spoken.admit(cited) == []
    heard(spoken, START, *said("a"), START, *said("b"))
    assert spoken.admit(cited) == [cited]


def test_words_that_got_lost_with_their_process_are_said_before_the_end() -> None:
    spoken, cited = Spoken(), {"number": 1}
    done = RunEvent("done", {"reply": {"answer": "a b", "citations": [cited]}})
    heard(spoken, START, *said("a "))
    assert spoken.admit(done) == [done], "a run that was not interrupted is left alone"
    spoken.interrupted = True
    assert [event.kind for event in spoken.admit(done)] == ["restart", "token", "citation", "done"]
