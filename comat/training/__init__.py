"""Fine-tuning: the step of Algorithm 1, the loop around it, and the warm-up before it."""
