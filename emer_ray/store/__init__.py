"""A run directory: the whole truth about one execution, on a local path or `s3://…` alike (design
§5).

run.json            resolved config, fingerprint, versions, choices with reasons, counts, timings
manifest.parquet    canonical copy of the manifest with the clip -> shard table
explanations/       one part per shard: the clips that are ok
failures/           one part per shard: the clips that failed
embeddings/         what the towers of split models made of clips, when asked for
index/              snapshots of what happened to every clip, rolled by the driver
claims/             marks of work in progress; empty after a clean run
lease.json          which driver is at work
"""
