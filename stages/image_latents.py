"""Images with captions → scaled latent means with one caption each, for mixed latents; counts what it skips."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import chain, islice
from operator import attrgetter
from pathlib import Path
from typing import TYPE_CHECKING

from comat.errors import main_guard
from comat.models.lock import pinned
from comat.params import Params, load
from comat.running.launch import launch_where_asked
from comat.running.stage import options, publish, say_fewer

if TYPE_CHECKING:
    from comat.corpora.pictures.listed import Picture
    from comat.running.distributed import Processes
    from comat.storage.shard_progress import Row


@main_guard
def main() -> None:
    args = options(__doc__, ["models"], "image_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    launch_where_asked("stages.image_latents")

    from comat.corpora.pictures.photos import check_lost
    from comat.corpora.pictures.read import choose, state_of
    from comat.running.distributed import join
    from comat.storage.tables import write_json

    section = params.image_latents
    with join(params.device) as processes:
        chosen = choose(section, params.seed)
        values = params.model_dump() | {"pictures": state_of(chosen.pictures)}
        with processes.directory("image_latents", values, args.models, []) as work:
            counts = encode(params, chosen.pictures, work, processes)
            if not processes.main:
                return
            if section.images:
                say_fewer("image_latents.count", section.count, len(chosen.pictures), "images with a caption")
            check_lost(section.images or "", len(chosen.pictures), counts["skipped"])
            report = {"listed": len(chosen.pictures), "without_caption": chosen.without, **counts}
            write_json(work / "report.json", report)
            publish(work, args.out)


def encode(params: Params, pictures: list[Picture], work: Path, processes: Processes) -> dict:
    """Write the store of pictures in `work`, going on where it was.

    Returns the counts for the report; they are complete on the main process.
    """
    import torch

    from comat.corpora.pictures.photos import Tally, read_photos
    from comat.diffusion.backbones.autoencoder import encode_images, load_vae
    from comat.running.device import choose_device
    from comat.running.shared_store import SharedStore
    from comat.storage.shard_progress import Row

    section, tally = params.image_latents, Tally()
    size = params.resolution
    store = SharedStore(processes, work, section.shard_size, pictures, attrgetter("name"), section.batch_size)

    def compute(batches: Sequence[Sequence[Picture]]) -> Iterator[list[Row]]:
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
        photos = read_photos(chain.from_iterable(batches), size)
        for batch in batches:
            part = list(tally.wanted(islice(photos, len(batch))))
            latents = list(encode_images(vae, torch.stack([photo.pixels for photo in part]))) if part else []
            yield [Row(photo.name, {"latents": z}, photo.caption) for photo, z in zip(part, latents, strict=True)]

    if store.writer is not None:  # of what an interrupted run has stored, only the counts are missing
        stored = {picture.name for picture in pictures if picture.name in store.writer}
        for _ in tally.wanted(read_photos(pictures[: store.done], size, done=stored)):
            pass
    store.fill(compute, "image latents")
    return sum(processes.gather(tally), Tally()).report()


if __name__ == "__main__":
    main()
