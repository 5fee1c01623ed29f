"""CoMat: prompt-faithful fine-tuning of text-to-image diffusion models."""

import os
import sys

# Before torch is imported, by whatever command: threads of OpenMP that wait spin, and beside any other work on the
# machine they wait for threads that cannot run (benchmarks/busy.py). No result depends on it.
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")

# In a log, where there is no terminal and nobody types, bars of tqdm, ours and the libraries', would write every
# iteration. There they write a line each half minute, and nothing of what takes less. tqdm reads this when
# it is imported; what the user has set goes first.
if not (sys.stderr.isatty() or hasattr(sys, "ps1")):
    os.environ |= {
        "TQDM_DELAY": "30",
        "TQDM_MININTERVAL": "30",
        "TQDM_MINITERS": "1",  # no guess at how many iterations that is
        "TQDM_POSITION": "0",  # no cursor to move up and down for a bar within a bar
        "TQDM_BAR_FORMAT": "{l_bar}{bar}{r_bar}\n",
    } | dict(os.environ)
