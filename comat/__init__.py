"""CoMat: prompt-faithful fine-tuning of text-to-image diffusion models."""

import os

# Before torch is imported, by whatever command: threads of OpenMP that wait spin, and beside any other work on the
# machine they wait for threads that cannot run (docs/speed.md, "A busy machine"). No result depends on it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
