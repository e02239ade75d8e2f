"""`bench scale` as it runs: replicas on nodes with GPUs that are only said to be there."""

from emer_ray.bench import scale


def test_replicas_on_gpus_of_other_nodes_are_fed() -> None:
    run = scale.Run(replicas=2, shape=scale.SMALL_FRAMES, batch_s=0.4, decoders=1)
    found = scale.measure(run, 2 * 24 * scale.BATCH)
    assert found["clips"] == 768
    assert 0.5 < found["occupancy"] <= 1.0
    assert {"driver", "Explain", "ParseWrite"} <= found["cpu_ms_per_batch"].keys()
