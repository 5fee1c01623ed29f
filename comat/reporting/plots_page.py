"""A page for `dvc plots show` with Vega's code inside, so that its charts draw without a network.

DVC's own page loads Vega from a content delivery network. A page in its place must hold `{plot_divs}`, and may leave
`{scripts}`, those addresses, out.
"""

from __future__ import annotations

import sys
from pathlib import Path

import vl_convert

from comat.storage.tables import write_bytes

VEGA_LITE = "5.20"
"""DVC's charts are written in version 5 of the language."""
TEMPLATE = Path(__file__).parent / "templates/plots.html"
"""Gives each chart and picture a heading, leaves out charts without data, and fits all to the width of the screen."""


def plots_page() -> str:
    """The template, about 0.9 MB; DVC's charts call `vegaEmbed`, which it defines."""
    code = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;", vl_version=VEGA_LITE)
    return TEMPLATE.read_text(encoding="utf-8").replace("VEGA", code)


if __name__ == "__main__":
    write_bytes(Path(sys.argv[1]), plots_page().encode())
