"""How many shards may be under way: one actor that lets them in and hears when they are out.

It imports next to nothing, because its process does nothing else and every start of a run waits for
it.
"""

import asyncio


class Gate:
    """Lets shards in while fewer than `most` are under way.

    Ray Data bounds bytes, not work: where blocks are small, decoders would run ahead of a slow
    model by hours, and a stop would lose all of it or wait for it. A shard that a restarted actor
    brings again is in already.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._inside: set[int] = set()
        self._changed = asyncio.Condition()

    async def enter(self, shard: int) -> None:
        async with self._changed:
            await self._changed.wait_for(
                lambda: shard in self._inside or len(self._inside) < self._most
            )
            self._inside.add(shard)

    async def leave(self, shard: int) -> None:
        async with self._changed:
            self._inside.discard(shard)
            self._changed.notify_all()
