"""A COCO-format folder → scaled latent means with one caption each, for mixed latents; counts what it skips."""

from __future__ import annotations

import itertools

from comat.errors import UserError, main_guard
from comat.models.lock import pinned
from comat.params import load
from comat.stage import options, publish


@main_guard
def main() -> None:
    args = options(__doc__, ["models"], "image_latents")
    params = pinned(load(args.params), args.models, "base_model", "vae")

    from pathlib import Path

    import torch
    from tqdm import tqdm

    from comat.diffusion.backbone import Backbone, choose_device
    from comat.images import captions_by_file, readable
    from comat.randomness import python_random
    from comat.store import TensorStoreWriter, write_json
    from comat.workdir import stage_directory

    section, folder = params.image_latents, Path(params.image_latents.images)
    pairs = captions_by_file(Path(section.captions), params.seed)
    python_random(params.seed, "images").shuffle(pairs)
    pairs = pairs[: section.count or len(pairs)]
    with stage_directory("image_latents", params, [Path(section.captions)]) as work:
        writer, skipped = TensorStoreWriter(work, section.shard_size), {}
        backbone = Backbone.load(
            params.base_model,
            params.base_revision,
            vae=params.vae,
            vae_revision=params.vae_revision,
            precision=params.precision,
            device=choose_device(params.device),
        )
        images = readable(folder, (pair for pair in pairs if pair[0] not in writer), params.resolution, skipped)
        progress = tqdm(total=len(pairs), desc="image latents")
        while part := list(itertools.islice(images, section.batch_size)):
            latents = backbone.encode_images(torch.stack([image for _, _, image in part]))
            for (name, caption, _), z in zip(part, latents, strict=True):
                writer.add(name, {"latents": z}, caption)
            progress.update(len(part))
        progress.close()
        writer.close()
        write_json(work / "report.json", {"listed": len(pairs), "skipped": skipped})
        if sum(skipped.values()) == len(pairs):
            raise UserError(f"{folder}: none of the {len(pairs)} images that {section.captions} lists could be read")
        publish(work, args.out)


if __name__ == "__main__":
    main()
