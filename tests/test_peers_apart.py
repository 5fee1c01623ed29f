"""Peers of every family at the size that was asked for, by one or several processes, and beside a run in its table."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from comat.errors import UserError
from comat.evaluation.peers import evaluate_peer
from comat.params import Params, load
from comat.reporting.peers import read_peers
from comat.reporting.table import result_table
from comat.running.distributed import join
from comat.samples.peers import Peer, Weights, check_name, draw_peer, load_pipeline
from comat.storage.images import read_rgb
from comat.storage.tables import IMAGE_INDEX, read_table, write_table
from tests import tiny_families, tiny_peers
from tests.conftest import judging_of
from tests.processes import finish, start
from tests.tiny_models import save_pixart

FAMILIES = ("pixart_sigma", "sd3", "sd3_without_t5", "flux_dev", "qwen_image", "z_image", *tiny_peers.NAMES)


@pytest.fixture
def params(project: Path) -> Params:
    return load(project / "params.yaml")


@pytest.fixture
def base(project: Path) -> Path:
    return project / "data/base_samples"


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_is_drawn_at_the_size_that_was_asked_for(base: Path, params: Params, tmp_path: Path, name) -> None:
    """PixArt and Sana have sizes of their own, next to which they draw unless told not to: asked for 64 px, 256."""
    module = tiny_peers if name in tiny_peers.NAMES else tiny_families
    model = getattr(module, f"save_{name}")(tmp_path / "model")
    asked = params.model_copy(update={"resolution": 64, "sampling_steps": 2})
    draw_peer(asked, 3, Peer(name, Weights(str(model))), base, tmp_path / "peer")
    images = [read_rgb(path) for path in sorted((tmp_path / "peer/images").iterdir())]
    assert [image.shape for image in images] == [(64, 64, 3)] * 4
    assert len({image.tobytes() for image in images}) == 4


def test_a_peer_that_draws_another_size_leaves_nothing_behind(base: Path, params: Params, tmp_path: Path) -> None:
    """This Lumina's autoencoder enlarges twice, where its pipeline takes eight times for granted."""
    model, out = tiny_peers.save_lumina2(tmp_path / "model"), tmp_path / "peer"
    asked = params.model_copy(update={"resolution": 64, "sampling_steps": 2})
    shutil.rmtree(model / "vae")
    tiny_families._vae(4).save_pretrained(model / "vae")
    with pytest.raises(UserError, match="Lumina2Pipeline drew 3 images of 16 x 16 px, asked for 3 of 64 x 64"):
        draw_peer(asked, 3, Peer("x", Weights(str(model))), base, out)
    assert not out.exists()


def test_a_pipeline_that_fails_at_its_first_image_leaves_nothing_behind(
    base: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    """12 px are no multiple of 8."""
    asked, out = params.model_copy(update={"resolution": 12}), tmp_path / "peer"
    with pytest.raises(UserError, match=r"StableDiffusionPipeline cannot draw 3 images of 12 px: ValueError: .*divis"):
        draw_peer(asked, 3, Peer("x", Weights(str(tiny / "sd15"))), base, out)
    assert not out.exists()


def test_a_pipeline_without_lora_says_so(tmp_path: Path) -> None:
    model = save_pixart(tmp_path / "pixart")
    with pytest.raises(UserError, match="PixArtAlphaPipeline takes none in diffusers; leave --lora out"):
        load_pipeline(Weights(str(model), lora=str(tmp_path)), "fp32")


@pytest.mark.parametrize("name", ["base", "tuned", "", " ", ".", "..", ".x", "a/b", "a\\b", "a\nb", "x" * 61])
def test_a_peer_has_a_name_of_its_own(name: str) -> None:
    with pytest.raises(UserError, match="--name"):
        check_name(name)
    check_name("PixArt-XL-2-512x512 (mine)")


def test_names_stand_whole_in_the_table() -> None:
    """Two defaults of which the first twelve characters are the same were one."""
    value = {"base": 0.25, "tuned": 0.5, "gain": 0.25, "gain_low": None, "gain_high": None, "n": 4}
    names = ["stable-diffusion-v1-4", "stable-diffusion-v1-5"]
    peers = {name: {"oracle": {"total": {"value": 0.1 + n}}, "fid": {"value": 1.0}} for n, name in enumerate(names)}
    lines = result_table({"oracle": {"total": value}, "fid": {"base": 1.0, "tuned": 1.0, "ratio": 1.0}}, peers)
    head, _, row, distance = lines.splitlines()
    assert head.split()[-2:] == names and row.split()[-2:] == ["10.0%", "110.0%"] and row.split()[4] == "none"
    assert len(head) == len(row) == len(distance)


def test_a_peer_of_other_images_or_judges_is_marked(
    project: Path, base: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    """Of six images beside 540, or judged before the judges changed: its numbers stand in the table, and this below."""
    peers, run = tmp_path / "peers", project / "data/evaluate"
    evaluate_peer(params, 3, judging_of(params), Peer("sd", Weights(str(tiny / "sd15"))), base, peers / "sd")
    assert read_peers(run, base, peers)[1] == []
    index = read_table(base / "index.parquet", IMAGE_INDEX)
    write_table(peers / "sd/index.parquet", [index[0], index[1] | {"seed": 7}], IMAGE_INDEX)
    said = json.loads((run / "evaluators.json").read_text())
    (peers / "sd/evaluators.json").write_text(json.dumps(said | {"clip_score": {"clip": "another"}}))
    found, notes = read_peers(run, base, peers)
    assert list(found) == ["sd"]
    assert notes == [
        "sd: of 1 of the run's 4 images, and of others and judged by others in clip_score; run `comat evaluate` for it "
        "again"
    ]


def test_a_peer_that_was_judged_in_another_way_is_marked(
    project: Path, base: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    """By the same judges: T2I-CompBench's own threshold was another, and the words of a question."""
    peers, run = tmp_path / "peers", project / "data/evaluate"
    evaluate_peer(params, 3, judging_of(params), Peer("sd", Weights(str(tiny / "sd15"))), base, peers / "sd")
    asked = json.loads((run / "judging.json").read_text())
    assert asked == json.loads((peers / "sd/judging.json").read_text()) and "clip_score" in asked
    asked["clip_score"] |= {"parameters": {"weight": 2.5}, "file": "another"}
    (peers / "sd/judging.json").write_text(json.dumps(asked))
    said = "sd: judged with other file and parameters in clip_score; run `comat evaluate` for it again"
    assert read_peers(run, base, peers)[1] == [said]


def test_a_peer_drawn_by_other_parameters_is_marked(
    project: Path, base: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    """By 3 steps from seed 1 beside a run of its own; what was drawn elsewhere claims nothing, whatever it says."""
    peers, run = tmp_path / "peers", project / "data/evaluate"
    asked = params.model_copy(update={"seed": params.seed + 1, "sampling_steps": 3})
    draw_peer(asked, 3, Peer("sd", Weights(str(tiny / "sd15"))), base, peers / "sd")
    (peers / "elsewhere").mkdir()
    (peers / "elsewhere/peer.json").write_text(json.dumps({"name": "elsewhere", "model": None, "seed": 99}))
    for name in ("sd", "elsewhere"):
        (peers / name / "metrics.json").write_text("{}")
    assert read_peers(run, base, peers)[1] == [
        f"sd: drawn with seed {params.seed + 1}, not {params.seed} and sampling_steps 3, not {params.sampling_steps}; "
        "remove its folder and run `comat evaluate` for it again"
    ]


def test_peers_are_shown_where_the_parameters_are_being_edited(
    project: Path, base: Path, params: Params, tiny: Path, tmp_path: Path
) -> None:
    draw_peer(params, 3, Peer("sd", Weights(str(tiny / "sd15"))), base, tmp_path / "peers/sd")
    (tmp_path / "peers/sd/metrics.json").write_text("{}")
    (tmp_path / "params.yaml").write_text("[]")
    found, (note,) = read_peers(tmp_path / "data/evaluate", base, tmp_path / "peers")
    assert list(found) == ["sd"]
    assert note.endswith("expected keys and values, got list; what the peers were drawn by is not compared with it")


def draw_by_several(params: Params, model: Path, base: Path, out: Path) -> None:
    with join("cpu") as processes:
        draw_peer(params, 3, Peer("x", Weights(str(model))), base, out, processes)


def test_two_processes_draw_a_peer_as_one_does(base: Path, params: Params, tiny: Path, tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    draw_peer(params, 3, Peer("x", Weights(str(tiny / "sd15"))), base, one)
    assert finish(start(2, draw_by_several, params, tiny / "sd15", base, two)) == [0, 0]
    files = [path.relative_to(one) for path in sorted(one.rglob("*")) if path.is_file()]
    assert len(files) == 6
    assert [(one / file).read_bytes() for file in files] == [(two / file).read_bytes() for file in files]
