"""The gate without Ray: who is let in, who waits, and who is sent away."""

import asyncio

from emer_ray.gate import Gate


async def _soon(waiting: "asyncio.Task[bool]") -> bool:
    """Tell whether it ends without anybody's help."""
    for _ in range(20):
        await asyncio.sleep(0)
    return waiting.done()


def test_no_more_are_inside_than_may_be() -> None:
    async def scene() -> None:
        gate = Gate(2)
        assert await gate.enter(1)
        assert await gate.enter(2)
        assert await gate.enter(1), "a restarted actor brings it again"
        third = asyncio.create_task(gate.enter(3))
        assert not await _soon(third)
        await gate.leave(1)
        assert await third
        fourth = asyncio.create_task(gate.enter(4))
        assert not await _soon(fourth)
        await gate.leave(1)  # is out already
        assert not await _soon(fourth)
        fourth.cancel()

    asyncio.run(scene())


def test_at_the_end_everybody_is_sent_away() -> None:
    async def scene() -> None:
        gate = Gate(1)
        assert await gate.enter(1)
        waiting = asyncio.create_task(gate.enter(2))
        assert not await _soon(waiting)
        await gate.end()
        assert not await waiting
        assert not await gate.enter(3)

    asyncio.run(scene())
