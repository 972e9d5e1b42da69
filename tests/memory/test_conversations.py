"""Conversations against a real Redis."""

from __future__ import annotations

import asyncio
import uuid
from dataclasses import dataclass, field

import pytest
from redis.asyncio import Redis

from errors import LuminaError
from memory.conversations import (
    Conversations,
    InvalidTurn,
    Message,
    SimilarMessage,
    UnknownConversation,
)


class IndexDown(LuminaError):
    """The index does not answer."""


@dataclass
class WordIndex:
    """An index in memory: likeness is the number of words shared."""

    kept: dict[tuple[str, str, str], str] = field(default_factory=dict)
    down: bool = False

    async def add(self, owner: str, conversation_id: str, turn_id: str, text: str) -> None:
        if self.down:
            raise IndexDown("the index is down")
        self.kept[owner, conversation_id, turn_id] = text

    async def similar(
        self, owner: str, text: str, limit: int, exclude_conversation: str | None = None
    ) -> list[SimilarMessage]:
        words = set(text.lower().split())
        found = [
            SimilarMessage(conversation, turn, kept, len(words & set(kept.lower().split())))
            for (of, conversation, turn), kept in self.kept.items()
            if of == owner and conversation != exclude_conversation
        ]
        return sorted(found, key=lambda message: -message.score)[:limit]

    async def forget(self, owner: str, conversation_id: str) -> None:
        if self.down:
            raise IndexDown("the index is down")
        self.kept = {key: text for key, text in self.kept.items() if key[:2] != (owner, conversation_id)}


@pytest.fixture
def index() -> WordIndex:
    return WordIndex()


@pytest.fixture
def conversations(redis: Redis, index: WordIndex) -> Conversations:
    return Conversations(redis, index)


def said(content: str, role: str = "user") -> Message:
    return Message(role, content)


async def test_turns_come_back_as_they_were_said(conversations: Conversations) -> None:
    conversation = await conversations.create("ada")
    answer = Message("assistant", "It is a set. 😀\n", {"citations": [{"n": 1, "title": "M"}], "tokens": {"output": 5}})
    stored = await conversations.append("ada", conversation.id, [said("What is it?"), answer])
    assert [turn.number for turn in stored] == [1, 2]
    assert len({uuid.UUID(turn.id) for turn in stored}) == 2
    assert await conversations.turns("ada", conversation.id) == stored
    assert (stored[1].role, stored[1].content, stored[1].metadata) == (answer.role, answer.content, answer.metadata)
    assert stored[0].ts <= stored[1].ts
    assert uuid.UUID(conversation.id).version == 4


async def test_only_the_latest_turns_are_read_when_asked(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said(str(n)) for n in range(5)])
    assert [turn.content for turn in await conversations.turns("ada", id_, last=2)] == ["3", "4"]
    assert await conversations.turns("ada", id_, last=0) == []


async def test_appending_takes_one_round_trip(redis: Redis) -> None:
    conversations = Conversations(redis)
    id_ = (await conversations.create("ada")).id
    before = (await redis.info("stats"))["total_reads_processed"]
    await conversations.append("ada", id_, [said("one"), said("two", "assistant")], idempotency_key="k")
    assert (await redis.info("stats"))["total_reads_processed"] - before == 2  # the append and this INFO


# Owners


async def test_a_foreign_conversation_is_as_unknown_as_a_missing_one(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada", title="mine")).id
    await conversations.append("ada", id_, [said("secret")])
    texts = set()
    for owner, wanted in (("bob", id_), ("ada", str(uuid.uuid4())), ("ada", "no uuid"), ("ada", "")):
        for attempt in (
            conversations.get(owner, wanted),
            conversations.turns(owner, wanted),
            conversations.append(owner, wanted, [said("x")]),
            conversations.append(owner, wanted, []),
            conversations.rename(owner, wanted, "x"),
            conversations.delete(owner, wanted),
        ):
            with pytest.raises(UnknownConversation) as refusal:
                await attempt
            texts.add(str(refusal.value).replace(repr(wanted), "ID"))
    assert len(texts) == 1  # nothing tells a foreign one from a missing one
    assert (await conversations.get("ada", id_)).title == "mine"
    assert (await conversations.page("bob")).conversations == []


async def test_the_same_id_under_two_owners_is_two_conversations(conversations: Conversations) -> None:
    id_ = str(uuid.uuid4())
    await conversations.create("ada", conversation_id=id_)
    await conversations.append("ada", id_, [said("of ada")])
    await conversations.create("bob", conversation_id=id_)
    assert await conversations.turns("bob", id_) == []
    [of_bob], [of_ada] = await conversations.append("bob", id_, [said("b")]), await conversations.turns("ada", id_)
    assert of_bob.id != of_ada.id  # or one would replace the other in the index


async def test_creating_one_that_exists_returns_it_unchanged(conversations: Conversations) -> None:
    first = await conversations.create("ada", title="first")
    await conversations.append("ada", first.id, [said("x")])
    again = await conversations.create("ada", title="other", conversation_id=first.id.upper())
    assert (again.id, again.title, again.turns) == (first.id, "first", 1)


# Sending again


async def test_a_resend_with_the_same_key_stores_nothing(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("before")])
    pair = [said("question"), said("answer", "assistant")]
    first = await conversations.append("ada", id_, pair, idempotency_key="k1")
    await conversations.append("ada", id_, [said("after")], idempotency_key="k2")
    assert await conversations.append("ada", id_, pair, idempotency_key="k1") == first
    assert [turn.content for turn in await conversations.turns("ada", id_)] == ["before", "question", "answer", "after"]
    assert (await conversations.get("ada", id_)).turns == 4


async def test_resends_at_once_store_one(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    replies = await asyncio.gather(
        *(conversations.append("ada", id_, [said("hello")], idempotency_key="k") for _ in range(20))
    )
    assert {turn.number for turns in replies for turn in turns} == {1}
    assert len(await conversations.turns("ada", id_)) == 1


async def test_without_a_key_every_sending_counts(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    for _ in range(2):
        await conversations.append("ada", id_, [said("hello")])
    assert len(await conversations.turns("ada", id_)) == 2


async def test_a_resend_of_more_messages_returns_what_was_stored(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("a"), said("b")])
    await conversations.append("ada", id_, [said("c")], idempotency_key="k")
    again = await conversations.append("ada", id_, [said("c"), said("d")], idempotency_key="k")
    assert [turn.content for turn in again] == ["c"]


# Trimming, ending


async def test_only_the_latest_turns_are_kept_and_keep_their_numbers(redis: Redis) -> None:
    conversations = Conversations(redis, max_turns=3)
    id_ = (await conversations.create("ada")).id
    for n in range(1, 6):
        await conversations.append("ada", id_, [said(str(n))], idempotency_key=f"k{n}")
    turns = await conversations.turns("ada", id_)
    assert [(turn.number, turn.content) for turn in turns] == [(3, "3"), (4, "4"), (5, "5")]
    assert (await conversations.get("ada", id_)).turns == 5
    resent = await conversations.append("ada", id_, [said("3")], idempotency_key="k3")
    assert [turn.number for turn in resent] == [3]
    assert await redis.zcard(f"lumina:{{ada}}:conversation:{id_}:sent") == 3


async def test_deleting_leaves_nothing(conversations: Conversations, redis: Redis, index: WordIndex) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("hello")], idempotency_key="k")
    await conversations.delete("ada", id_)
    assert await redis.keys("*") == []
    assert index.kept == {}
    with pytest.raises(UnknownConversation):
        await conversations.delete("ada", id_)


async def test_a_delete_that_the_index_refuses_can_be_tried_again(
    conversations: Conversations, redis: Redis, index: WordIndex
) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("hello")])
    index.down = True
    with pytest.raises(IndexDown):
        await conversations.delete("ada", id_)
    index.down = False
    await conversations.delete("ada", id_)
    assert (index.kept, await redis.keys("*")) == ({}, [])


async def test_a_lifetime_covers_every_key_and_begins_anew_with_each_turn(redis: Redis) -> None:
    conversations = Conversations(redis, ttl_s=1000)
    id_ = (await conversations.create("ada")).id
    assert 0 < await redis.ttl(f"lumina:{{ada}}:conversation:{id_}") <= 1000
    await redis.expire(f"lumina:{{ada}}:conversation:{id_}", 5)
    await conversations.append("ada", id_, [said("hello")], idempotency_key="k")
    own = [key async for key in redis.scan_iter(f"*{id_}*")]
    assert len(own) == 3
    assert all([990 < await redis.ttl(key) <= 1000 for key in own])


async def test_expired_conversations_are_in_no_list(redis: Redis) -> None:
    conversations = Conversations(redis, ttl_s=1000)
    gone, kept = [(await conversations.create("ada")).id for _ in range(2)]
    await redis.delete(f"lumina:{{ada}}:conversation:{gone}")  # what Redis does at the end of the lifetime
    assert [conversation.id for conversation in (await conversations.page("ada")).conversations] == [kept]
    with pytest.raises(UnknownConversation):
        await conversations.turns("ada", gone)


async def test_without_a_lifetime_nothing_expires(conversations: Conversations, redis: Redis) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("hello")], idempotency_key="k")
    assert {await redis.ttl(key) for key in await redis.keys("*")} == {-1}


# Lists and titles


async def test_pages_hold_every_conversation_once_latest_first(conversations: Conversations) -> None:
    ids = [(await conversations.create("ada")).id for _ in range(25)]  # several within one millisecond
    await conversations.append("ada", ids[3], [said("the latest")])
    found, after = [], None
    while True:
        page = await conversations.page("ada", limit=4, after=after)
        assert len(page.conversations) <= 4
        found += page.conversations
        if (after := page.next) is None:
            break
    assert sorted(conversation.id for conversation in found) == sorted(ids)
    assert [conversation.updated for conversation in found] == sorted((c.updated for c in found), reverse=True)
    assert (await conversations.page("ada", limit=25)).next is None
    with pytest.raises(InvalidTurn, match="`next`"):
        await conversations.page("ada", after="nonsense")


async def test_the_first_message_gives_the_title_unless_there_is_one(conversations: Conversations) -> None:
    named, unnamed = await conversations.create("ada", title="Mine"), await conversations.create("ada")
    for conversation in (named, unnamed):
        await conversations.append("ada", conversation.id, [said("\n  What is a fractal?  \nTell me.")])
        await conversations.append("ada", conversation.id, [said("And another thing")])
    assert (await conversations.get("ada", named.id)).title == "Mine"
    assert (await conversations.get("ada", unnamed.id)).title == "What is a fractal?"
    await conversations.rename("ada", unnamed.id, "Fractals")
    assert (await conversations.get("ada", unnamed.id)).title == "Fractals"


async def test_a_long_first_message_is_cut_at_a_word(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("several words " * 20)])
    title = (await conversations.get("ada", id_)).title
    assert len(title) <= 80
    assert title.endswith(("several…", "words…"))


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (Message("root", "x"), "role 'root' is unknown; accepted are user"),
        (Message("user", "x" * 1_048_577), "content .* has 1048577 bytes; at most 1048576"),
        (Message("user", "x", {"m": "y" * 262_144}), "metadata .* at most 262144"),
        (Message("user", "x", {"m": object()}), "cannot be stored as JSON"),
        (Message("user", "\ud800"), "cannot be stored as JSON"),
    ],
)
async def test_a_message_that_is_refused_stores_nothing(
    conversations: Conversations, message: Message, words: str
) -> None:
    id_ = (await conversations.create("ada")).id
    with pytest.raises(InvalidTurn, match=words):
        await conversations.append("ada", id_, [said("fine"), message])
    assert await conversations.turns("ada", id_) == []


async def test_titles_and_keys_have_a_length(conversations: Conversations) -> None:
    id_ = (await conversations.create("ada")).id
    with pytest.raises(InvalidTurn, match="81 characters; at most 80"):
        await conversations.rename("ada", id_, "x" * 81)
    with pytest.raises(InvalidTurn, match="256 characters; at most 255"):
        await conversations.append("ada", id_, [said("x")], idempotency_key="k" * 256)


# Recall


async def test_the_most_similar_earlier_messages_of_the_same_owner_are_recalled(conversations: Conversations) -> None:
    old, new = (await conversations.create("ada")).id, (await conversations.create("ada")).id
    foreign = (await conversations.create("bob")).id
    await conversations.append("bob", foreign, [said("the fractal dimension of a coast line")])
    earlier = [said(text) for text in ("the fractal dimension", "about tea", "dimension of a box", "a fractal")]
    await conversations.append("ada", old, [*earlier, Message("system", "the fractal dimension")])
    await conversations.append("ada", new, [said("fractal dimension again")])
    found = await conversations.recall("ada", "the fractal dimension of a coast", exclude_conversation=new)
    assert [message.text for message in found] == ["the fractal dimension", "dimension of a box", "a fractal"]
    assert {message.conversation_id for message in found} == {old}
    assert found[0].turn_id == (await conversations.turns("ada", old))[0].id
    assert len(await conversations.recall("ada", "fractal", limit=1)) == 1
    assert await conversations.recall("ada", "  ") == []


async def test_messages_of_conversations_that_are_gone_are_not_recalled(
    conversations: Conversations, redis: Redis
) -> None:
    gone, kept = (await conversations.create("ada")).id, (await conversations.create("ada")).id
    await conversations.append("ada", gone, [said("fractal one")])
    await conversations.append("ada", kept, [said("fractal two")])
    await redis.delete(f"lumina:{{ada}}:conversation:{gone}")
    assert [message.text for message in await conversations.recall("ada", "fractal")] == ["fractal two"]


async def test_a_turn_that_could_not_be_indexed_is_indexed_by_the_resend(
    conversations: Conversations, index: WordIndex
) -> None:
    id_ = (await conversations.create("ada")).id
    index.down = True
    await conversations.append("ada", id_, [said("fractal")], idempotency_key="k")
    assert len(await conversations.turns("ada", id_)) == 1
    index.down = False
    await conversations.append("ada", id_, [said("fractal")], idempotency_key="k")
    assert len(await conversations.turns("ada", id_)) == 1
    assert [message.text for message in await conversations.recall("ada", "fractal")] == ["fractal"]


async def test_without_an_index_nothing_is_recalled(redis: Redis) -> None:
    conversations = Conversations(redis)
    id_ = (await conversations.create("ada")).id
    await conversations.append("ada", id_, [said("fractal")])
    assert await conversations.recall("ada", "fractal") == []
