"""Many ranks, one run. world: who is who, and sums over ranks; parallel: a model replicated or in shards;
sharded_checkpoint: its files."""
