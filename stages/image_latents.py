"""A COCO-format folder → scaled latent means with one caption each, for mixed latents; counts what it skips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import itemgetter
from pathlib import Path
from typing import TYPE_CHECKING

from comat.errors import UserError, main_guard
from comat.models.lock import pinned
from comat.params import Params, load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish

if TYPE_CHECKING:
    from comat.running.distributed import Processes
    from comat.running.shared_store import Row


@main_guard
def main() -> None:
    args = options(__doc__, ["models"], "image_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.image_latents")

    from comat.corpora.coco import choose
    from comat.running.distributed import join
    from comat.storage.tables import write_json

    section = params.image_latents
    inputs, values = [Path(section.captions)] if section.captions else [], params.model_dump()
    with join(params.device) as processes, processes.directory("image_latents", values, args.models, inputs) as work:
        captions = choose(section, params.seed)
        counts = encode(params, captions.pairs, work, processes)
        if not processes.main:
            return
        if captions.pairs and not counts["stored"]:
            listed = f"the {len(captions.pairs)} images that {section.captions} lists"
            raise UserError(f"{section.images}: none of {listed} could be read")
        write_json(work / "report.json", {"listed": len(captions.pairs), "without_caption": captions.without, **counts})
        publish(work, args.out)


def encode(params: Params, pairs: list[tuple[str, str]], work: Path, processes: Processes) -> dict:
    """Write the store of (file name, caption) pairs in `work`, going on where it was.

    Returns the counts for the report; they are complete on the main process.
    """
    import torch

    from comat.corpora.coco import Tally, read_photos
    from comat.diffusion.backbone import encode_images, load_vae
    from comat.running.device import choose_device
    from comat.running.shared_store import Row, SharedStore

    section, tally = params.image_latents, Tally()
    folder, size = Path(section.images or ""), params.resolution
    store = SharedStore(processes, work, section.shard_size, pairs, itemgetter(0), section.batch_size)

    def compute(batches: Sequence[Sequence[tuple[str, str]]]) -> Iterator[list[Row]]:
        if not batches:
            return
        vae = load_vae(
            params.base_model,
            params.base_revision,
            params.vae,
            params.vae_revision,
            params.precision,
            choose_device(params.device),
        )
        photos = read_photos(folder, chain.from_iterable(batches), size)
        for batch in batches:
            part = list(tally.wanted(islice(photos, len(batch))))
            images = [photo.image for photo in part if photo.image is not None]
            latents = list(encode_images(vae, torch.stack(images))) if images else []
            yield [Row(photo.name, z, photo.caption) for photo, z in zip(part, latents, strict=True)]

    if store.writer:  # of what an interrupted run has stored, only the counts are missing
        for _ in tally.wanted(read_photos(folder, pairs[: store.done], size, done=store.writer)):
            pass
    store.fill(compute, "image latents")
    return sum(processes.gather(tally), Tally()).report()


if __name__ == "__main__":
    main()
