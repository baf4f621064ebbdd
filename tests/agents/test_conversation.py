"""Conversations: turns in order, what the agent is given, prompts that come too early, branches, and going on."""

import asyncio
from typing import Any

import pytest

from lastcall.agents import AgentQueue, RunStatus, Turn
from lastcall.exceptions import BadResult, ConversationBusy, RunFailed, UnknownConversation, UnknownStream
from lastcall.streams import follow
from tests.agents.places import PATIENCE_SECONDS, Gated, Place, ended, eventually


async def parrot(prompt: Any, history: list[dict[str, Any]]) -> str:
    """Tells what it was given."""
    said = " ".join(f"{message['role'][0]}:{message['content']}" for message in history)
    return f"[{said}] {prompt}"


async def test_the_agent_is_given_what_was_said(place: Place) -> None:
    """Three turns: each is given the prompts and answers before it; the list and the history show them in order."""
    async with place.queue(parrot) as queue:
        chat = queue.conversation(user="ann")
        assert await chat.turns() == [] and await chat.history() == []
        answers = [await (await chat.send(prompt)).result(PATIENCE_SECONDS) for prompt in ("a", "b")]
        assert answers == ["[] a", "[u:a a:[] a] b"]
        again = queue.conversation(chat.id)
        third = await again.send("c")
        assert await third.result(PATIENCE_SECONDS) == "[u:a a:[] a u:b a:[u:a a:[] a] b] c"
        turns = await chat.turns()
        assert [(turn.turn, turn.prompt, turn.status) for turn in turns] == [
            (1, "a", "completed"),
            (2, "b", "completed"),
            (3, "c", "completed"),
        ]
        assert turns[2].run_id == third.id
        assert [message["content"] for message in await chat.history()][:4] == ["a", "[] a", "b", answers[1]]
        info = await third.info()
        assert (info.conversation, info.turn, info.user) == (chat.id, 3, None)
        assert [run.turn for run in await queue.runs(conversation=chat.id)] == [3, 2, 1]


async def test_two_conversations_know_nothing_of_each_other(place: Place) -> None:
    """Turns of two conversations run side by side, and each is given its own past alone."""
    async with place.queue(parrot) as queue:
        chats = [queue.conversation() for _ in range(2)]
        for prompt in ("a", "b"):
            runs = [await chat.send(f"{prompt}{n}") for n, chat in enumerate(chats)]
            await ended(runs)
        assert [(await chat.history())[2]["content"] for chat in chats] == ["b0", "b1"]
        assert [(await chat.history())[1]["content"] for chat in chats] == ["[] a0", "[] a1"]


async def test_a_prompt_that_comes_too_early_is_refused(place: Place) -> None:
    """A turn runs; another prompt is refused, told by which run, and nothing of it is kept."""
    agent = Gated()
    async with place.queue(agent) as queue:
        chat = queue.conversation()
        first = await chat.send("a")
        await agent.has_begun("a")
        with pytest.raises(ConversationBusy, match=first.id) as caught:
            await chat.send("b")
        assert caught.value.run_id == first.id
        agent.let_all()
        await ended([first])
        await ended([await chat.send("c")])
        assert [turn.prompt for turn in await chat.turns()] == ["a", "c"]
        assert agent.begun == ["a", "c"]


async def test_a_prompt_that_comes_too_early_waits_for_its_turn(place: Place) -> None:
    """Three prompts at once with on_busy='queue': one after the other, though there are places for all."""
    agent = Gated()
    async with place.queue(agent, on_busy="queue") as queue:
        chat = queue.conversation()
        runs = [await chat.send(prompt) for prompt in ("a", "b", "c")]
        other = await queue.submit("other")
        await agent.has_begun("a")
        await agent.has_begun("other")
        assert agent.running == {"a", "other"}
        assert [turn.turn for turn in await chat.turns()] == [1, 2, 3]
        agent.let_all()
        assert await ended([*runs, other]) == ["completed"] * 4
        assert [prompt for prompt in agent.begun if prompt != "other"] == ["a", "b", "c"]
        assert agent.most == 2


async def test_a_cancelled_turn_in_between_lets_nobody_overtake(place: Place) -> None:
    """Of three turns the second is cancelled while it waits: the third still waits for the first."""
    agent = Gated()
    async with place.queue(agent, on_busy="queue") as queue:
        chat = queue.conversation()
        first, second, third = [await chat.send(prompt) for prompt in ("a", "b", "c")]
        await agent.has_begun("a")
        await second.cancel()
        await second.wait(PATIENCE_SECONDS)
        other = await queue.submit("other")
        await agent.has_begun("other")
        assert "c" not in agent.begun
        agent.let_all()
        assert await ended([first, second, third, other]) == [
            "completed",
            "cancelled",
            "completed",
            "completed",
        ]
        assert agent.begun == ["a", "other", "c"]


async def test_a_new_prompt_interrupts_the_running_one(place: Place) -> None:
    """With on_busy='interrupt' what runs and what waits is cancelled, and the new prompt is the next to run."""
    agent = Gated()
    async with place.queue(agent) as queue:
        chat = queue.conversation()
        first = await chat.send("a")
        await agent.has_begun("a")
        second = await chat.send("b", on_busy="queue")
        third = await chat.send("c", on_busy="interrupt")
        agent.let("c")
        assert await ended([first, second, third]) == ["cancelled", "cancelled", "completed"]
        assert agent.begun == ["a", "c"]
        assert [(turn.prompt, turn.status) for turn in await chat.turns()] == [
            ("a", "cancelled"),
            ("c", "completed"),
        ]
        assert await chat.history() == [
            {"role": "user", "content": "c"},
            {"role": "assistant", "content": "answer to c"},
        ]


async def test_many_who_send_at_once_get_a_turn_each(place: Place) -> None:
    """Twenty prompts for one conversation in the same moment: twenty numbers, and each runs once, alone."""
    agent = Gated()
    agent.let_all()
    async with place.queue(agent, concurrency=8, on_busy="queue") as queue:
        chat = queue.conversation()
        runs = await asyncio.gather(*(chat.send(f"p{number}") for number in range(20)))
        assert set(await ended(runs)) == {RunStatus.COMPLETED}
        assert [turn.turn for turn in await chat.turns()] == list(range(1, 21))
        assert sorted(agent.begun) == sorted(f"p{number}" for number in range(20))
        assert agent.most == 1


async def test_a_branch_goes_its_own_way(place: Place) -> None:
    """A conversation is branched at its first turn and at its last; each goes on alone, and the first is as it was."""
    async with place.queue(parrot) as queue:
        chat = queue.conversation(user="ann")
        for prompt in ("a", "b"):
            await (await chat.send(prompt)).result(PATIENCE_SECONDS)
        early, late = await chat.branch(after=1), await chat.branch()
        assert await (await early.send("x")).result(PATIENCE_SECONDS) == "[u:a a:[] a] x"
        assert await (await late.send("y")).result(PATIENCE_SECONDS) == "[u:a a:[] a u:b a:[u:a a:[] a] b] y"
        assert [turn.prompt for turn in await chat.turns()] == ["a", "b"]
        assert [(turn.turn, turn.prompt) for turn in await early.turns()] == [(1, "a"), (2, "x")]
        assert [(turn.turn, turn.prompt) for turn in await late.turns()] == [(1, "a"), (2, "b"), (3, "y")]
        of_branch = await early.branch()
        assert [turn.prompt for turn in await of_branch.turns()] == ["a", "x"]
        for nothing in (3, 0):
            with pytest.raises(UnknownConversation, match=f"no turn {nothing}"):
                await chat.branch(after=nothing)
        with pytest.raises(UnknownConversation):
            await queue.conversation().branch()


async def test_a_failed_turn_is_resumed(place: Place) -> None:
    """The model fails in a turn: the past does not show it; resumed it runs again, and what was done stays done."""
    calls: list[str] = []

    async def search() -> str:
        calls.append("search")
        return "found"

    async def agent(turn: Turn, prompt: str) -> str:
        found = await turn.step(search, name="search")
        calls.append("model")
        if calls.count("model") == 1:
            raise ConnectionError("the model is away")
        return f"{prompt}: {found}"

    async with place.queue(agent) as queue:
        chat = queue.conversation()
        run = await chat.send("tea")
        with pytest.raises(RunFailed):
            await run.result(PATIENCE_SECONDS)
        assert [turn.status for turn in await chat.turns()] == ["failed"]
        assert await chat.history() == []
        again = await chat.resume()
        assert again is not None
        assert await again.result(PATIENCE_SECONDS) == "tea: found"
        assert await chat.resume() is None
        assert await chat.history() == [
            {"role": "user", "content": "tea"},
            {"role": "assistant", "content": "tea: found"},
        ]
        if place.is_durable:
            assert again.id == run.id and calls == ["search", "model", "model"]
        else:
            assert calls == ["search", "model", "search", "model"]


async def test_a_turn_that_runs_is_found_again(place: Place) -> None:
    """Who comes back while the turn is under way gets its run, and can follow it to its end."""
    agent = Gated()
    async with place.queue(agent) as queue:
        chat = queue.conversation()
        run = await chat.send("a")
        await agent.has_begun("a")
        found = await queue.conversation(chat.id).resume()
        assert found is not None and found.id == run.id
        agent.let_all()
        assert await found.result(PATIENCE_SECONDS) == "answer to a"
        assert await queue.conversation().resume() is None


async def test_what_is_said_can_be_followed(place: Place) -> None:
    """A conversation is a stream: a reader follows it over several turns; before the first there is none."""
    async with place.queue(parrot) as queue:
        chat = queue.conversation()
        with pytest.raises(UnknownStream):
            await chat.log().read(0, 10)
        await (await chat.send("a")).result(PATIENCE_SECONDS)
        seen: list[int] = []

        async def read() -> None:
            async for entries in follow(chat.log()):
                seen.extend(entry.seq for entry in entries)

        reader = asyncio.create_task(read())
        await eventually(lambda: seen == [1, 2])
        await (await chat.send("b")).result(PATIENCE_SECONDS)
        await eventually(lambda: seen == [1, 2, 3, 4])
        reader.cancel()
        await asyncio.wait({reader})


async def test_an_answer_that_nobody_could_store_fails_the_turn(place: Place) -> None:
    """A conversation keeps JSON: a prompt that is none is refused at once, an answer that is none fails its run."""

    async def agent(prompt: str) -> object:
        return object()

    async with place.queue(agent) as queue:
        chat = queue.conversation()
        with pytest.raises(BadResult):
            await chat.send(object())
        run = await chat.send("a")
        with pytest.raises(RunFailed, match="BadResult"):
            await run.result(PATIENCE_SECONDS)


@pytest.mark.parametrize("id", ["", "two\nlines", "x" * 101, 7])
def test_an_id_that_is_none_is_refused(id: Any) -> None:
    """An id of a conversation is a short printable text."""
    with pytest.raises(ValueError, match="id of a conversation"):
        AgentQueue(parrot).conversation(id)
