"""What a run will need, before it runs: memory, time and disk, by formula from the models' configurations alone."""
