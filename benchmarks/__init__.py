"""What is measured, each by `python -m benchmarks.NAME`; docs/speed.md and docs/results.md show what came out."""

import comat  # noqa: F401 (before torch: the threads' default is part of what is measured)
