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
        self._ended = False
        self._changed = asyncio.Condition()

    async def enter(self, shard: int) -> bool:
        """Wait until the shard may be begun; false where the run has ended instead."""
        async with self._changed:
            await self._changed.wait_for(
                lambda: self._ended or shard in self._inside or len(self._inside) < self._most
            )
            if not self._ended:
                self._inside.add(shard)
            return not self._ended

    async def leave(self, shard: int) -> None:
        """Hear that the shard is out."""
        async with self._changed:
            self._inside.discard(shard)
            self._changed.notify_all()

    async def end(self) -> None:
        """Send away who waits, and who still comes."""
        async with self._changed:
            self._ended = True
            self._changed.notify_all()
