"""What travels between pools; runs on Ray are in tests/integration."""

import pyarrow as pa

from emer_ray import runner, schema


def _table(clips: int) -> pa.Table:
    rows = [
        {
            **dict.fromkeys(schema.DECODED.names),
            **{"clip_id": f"c{number}", "shard": 7, "shard_clips": clips, "notes": ["a", "b"]},
            **{"frames": bytes([number]) * 1000, "frame_shape": [1, 10, 10, 3]},
        }
        for number in range(clips)
    ]
    columns = [pa.array([row.get(f.name) for row in rows], f.type) for f in schema.DECODED]
    return pa.table(columns, schema=schema.DECODED)


def test_a_block_gives_back_its_shard_without_copying_it() -> None:
    table = _table(3)
    block = runner.packed(7, table)
    assert block.num_rows == 1
    shard, found, _ = runner.unpacked(block)
    assert (shard, found.schema) == (7, table.schema)
    assert found.equals(table)
    given, taken = (each["frames"].chunk(0).buffers()[2].address for each in (table, found))
    assert given == taken
    content, words = block["table"].chunk(0).buffers()[2], found["clip_id"].chunk(0).buffers()[-1]
    assert content.address <= words.address < content.address + content.size


def test_heavy_columns_that_hold_nothing_or_are_not_there_stay_so() -> None:
    empty = _table(3).set_column(
        _table(3).schema.get_field_index("frames"),
        schema.DECODED.field("frames"),
        pa.nulls(3, pa.large_binary()),
    )
    assert runner.unpacked(runner.packed(7, empty))[1].equals(empty)
    light = _table(3).drop_columns(["frames", "pcm"])
    assert runner.unpacked(runner.packed(7, light))[1].equals(light)
    some = pa.concat_tables([_table(2), empty.slice(0, 1)])  # chunks, and a value that is null
    assert runner.unpacked(runner.packed(7, some))[1].equals(some)


def test_a_shard_without_rows_and_a_block_among_others_keep_their_number() -> None:
    blocks = pa.concat_tables([runner.packed(5, _table(2)), runner.packed(6, _table(0))])
    one, other = runner.unpacked(blocks.slice(0, 1)), runner.unpacked(blocks.slice(1, 1))
    assert [(one[0], one[1].num_rows), (other[0], other[1].num_rows)] == [(5, 2), (6, 0)]
    joined = blocks.combine_chunks()
    assert runner.unpacked(joined.slice(1, 1))[0] == 6
    assert runner.unpacked(joined.slice(0, 1))[1].equals(_table(2))


def test_the_trail_travels_with_the_table_and_is_no_part_of_it() -> None:
    table = _table(2)
    block = runner.packed(7, table, b'{"pool":"decode"}\n')
    _, found, trail = runner.unpacked(block)
    assert trail == b'{"pool":"decode"}\n'
    assert found.schema.equals(table.schema, check_metadata=True)
    assert runner.unpacked(runner.packed(7, found))[2] == b""
