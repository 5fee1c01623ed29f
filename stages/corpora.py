"""The published corpora that `corpora.fetch` names → data/corpora, checked by sha256; and manifest.json."""

from __future__ import annotations

from comat.errors import main_guard
from comat.params import load
from comat.running.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, [], "corpora")
    section = load(args.params).corpora

    from pathlib import Path

    from comat.corpora.fetch import LIST, fetch, published
    from comat.running.workdir import fingerprint, work_directory
    from comat.storage.tables import write_json

    known = published()
    # Of what is fetched alone: a change elsewhere must not throw away what has arrived.
    with work_directory("corpora", fingerprint(section.fetch, [LIST], code=())) as work:
        source = Path(section.source) if section.source else None
        manifest = fetch([known[name] for name in section.fetch], source, work)
        write_json(work / "manifest.json", manifest)
        publish(work, args.out)
    if not section.fetch:
        print("corpora.fetch is empty: nothing to get, the corpora of these parameters are in place")


if __name__ == "__main__":
    main()
