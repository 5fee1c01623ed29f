"""A COCO-format folder → scaled latent means with one caption each, for mixed latents; counts what it skips."""

from __future__ import annotations

import itertools
from pathlib import Path

from comat.errors import UserError, main_guard
from comat.models.lock import pinned
from comat.params import Params, load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models"], "image_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from comat.coco import choose
    from comat.store import write_json
    from comat.workdir import stage_directory

    section = params.image_latents
    captions = choose(section, params.seed)
    with stage_directory("image_latents", params, [Path(section.captions)] if section.captions else []) as work:
        counts = encode(params, captions.pairs, work)
        if captions.pairs and not counts["stored"]:
            listed = f"the {len(captions.pairs)} images that {section.captions} lists"
            raise UserError(f"{section.images}: none of {listed} could be read")
        write_json(work / "report.json", {"listed": len(captions.pairs), "without_caption": captions.without, **counts})
        publish(work, args.out)


def encode(params: Params, pairs: list[tuple[str, str]], work: Path) -> dict:
    """Write the store of (file name, caption) pairs in `work`, going on where it was; the counts for the report."""
    import torch
    from tqdm import tqdm

    from comat.coco import Tally, read_photos
    from comat.diffusion.backbone import choose_device, encode_images, load_vae
    from comat.store import TensorStoreWriter

    section, tally = params.image_latents, Tally()
    writer = TensorStoreWriter(work, section.shard_size)
    if pairs:
        vae = load_vae(
            params.base_model,
            params.base_revision,
            params.vae,
            params.vae_revision,
            params.precision,
            choose_device(params.device),
        )
        folder = Path(section.images)
        images = tally.wanted(read_photos(folder, tqdm(pairs, desc="image latents"), params.resolution, done=writer))
        # A batch ends where a shard ends: a resumed run encodes the same batches, to the same bytes.
        while part := list(itertools.islice(images, min(section.batch_size, writer.room))):
            latents = encode_images(vae, torch.stack([photo.image for photo in part]))
            for photo, z in zip(part, latents, strict=True):
                writer.add(photo.name, {"latents": z}, photo.caption)
    writer.close()
    return tally.report()


if __name__ == "__main__":
    main()
