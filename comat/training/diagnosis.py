"""Why a run stopped whose losses or gradients are not finite."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence

TERMS = {
    "i2t": "i2t (Eq. 2)",
    "attribute": "attribute (Eq. 4 and 5)",
    "adversarial": "adversarial (Eq. 3)",
    "discriminator": "discriminator (Eq. 3)",
    "denoising": "denoising (Eq. 1)",
    "masks_empty": "the image that the segmenter was shown",
}


def diagnose(rows: Sequence[Mapping[str, float]], learning_rate: float, precision: str, scale: float) -> str:
    """One line on the last steps, all of them skipped: which term was not finite how often, and at which settings.

    `rows` are those of the curves, the last one of the step after which the run stopped; `scale` is the loss scale.
    """
    counts = Counter(cause for row in rows for cause in _causes(row))
    causes = ", ".join(f"{cause} in {count}" for cause, count in counts.most_common())
    return (
        f"training stopped at iteration {rows[-1]['iteration']}: the last {len(rows)} steps were skipped, not finite "
        f"was {causes} of them; learning_rate is {learning_rate:g}, precision {precision} with loss "
        f"scale {scale:g}. Lower learning_rate, use precision bf16 or fp32, or switch that term off to see what is to "
        "blame"
    )


def _causes(row: Mapping[str, float]) -> list[str]:
    """The terms that are not finite; a gradient only where every term is, since it follows from them."""
    terms = [label for name, label in TERMS.items() if not math.isfinite(row.get(name, 0.0))]
    if terms:
        return terms
    return ["the discriminator's gradient" if math.isfinite(row["grad_norm"]) else "the gradient of finite losses"]
