"""Fine-tuning: the loop around the step of Algorithm 1 (`comat.method`), and the warm-up before it."""
