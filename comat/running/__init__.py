"""How a stage runs: its options, its working folder, its processes and the shards that they share."""
