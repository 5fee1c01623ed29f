"""What is seen of a training while it runs: pictures, growing curves, LoRAs on the way, loggers; no byte changes."""

from __future__ import annotations

import base64
import csv
import io
import json
import re
import shutil
from contextlib import nullcontext
from html.parser import HTMLParser
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from accelerate.tracking import GeneralTracker
from PIL import Image
from torch import Tensor

from comat.diffusion.load import load_backbone
from comat.diffusion.lora import load_lora, merged
from comat.diffusion.sampling import sample_latents
from comat.errors import Interrupted, UserError
from comat.models.finite import NotFinite
from comat.params import Params, PreviewParams, TrainParams
from comat.storage.images import to_bytes
from comat.storage.tables import read_safetensors
from comat.tokenizers import load_tokenizers
from comat.training.curves import postfix
from comat.training.loggers import NOBODY, Loggers
from comat.training.preview import Preview, check_prompts
from comat.training.trainer import Trainer
from tests.test_guard import Verdicts, data_of, guarded
from tests.test_stages import TRAINED, params_of

PROMPTS = ["a red ball", "two green stars & <b>more</b>"]


def watched(params: Params, **changes: object) -> Params:
    """Parameters with a look and a LoRA kept every second iteration, and a checkpoint every third."""
    own = {"preview": {"every": 2, "prompts": PROMPTS}, "keep_every": 2, "checkpoint_every": 3, **changes}
    return params.model_copy(update={"train": TrainParams.model_validate(params.train.model_dump() | own)})


def trainer(params: Params, project: Path, work: Path, live: Path | None = None, loggers: Loggers = NOBODY) -> Trainer:
    work.mkdir(exist_ok=True)
    data = data_of(params, project)
    return Trainer(params, load_backbone(params, project / "data/warmup"), data, work, live=live, loggers=loggers)


class Notes(GeneralTracker):
    """A logger that notes what it is told, and fails at step `fails`."""

    name, requires_logging_directory = "notes", False

    def __init__(self, fails: int = -1) -> None:
        super().__init__()
        self.told: list[tuple[int, str]] = []
        self.fails = fails

    @property
    def tracker(self) -> list:
        return self.told

    def log(self, values: dict, step: int | None = None, **_: object) -> None:
        assert step is not None
        if step == self.fails:
            raise ConnectionError("the network\nis gone")
        self.told += [(step, name) for name in values]

    def log_images(self, values: dict, step: int | None = None, **_: object) -> None:
        self.log(values, step)


@pytest.fixture(scope="module")
def run(project: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Notes]:
    """The folder of a run that was watched in every way, with its results in `out`, and what its logger was told."""
    folder, notes = tmp_path_factory.mktemp("watched"), Notes()
    whole = trainer(watched(params_of(project)), project, folder / "work", folder / "live", Loggers([notes]))
    whole.run()
    whole.export(folder / "work/out")
    shutil.copytree(folder / "work/out", folder / "out")
    return folder, notes


def test_nothing_of_it_changes_a_byte(project: Path, run: tuple[Path, Notes], tmp_path: Path) -> None:
    off = watched(params_of(project), preview={"every": 0, "prompts": []}, keep_every=0)
    unseen = trainer(off, project, tmp_path / "work")
    unseen.run()
    unseen.export(tmp_path / "work/out")
    for file in TRAINED:
        assert (tmp_path / "work/out" / file).read_bytes() == (run[0] / "out" / file).read_bytes(), file
    assert "None were drawn" in (tmp_path / "work/out/preview.html").read_text()
    assert [*(tmp_path / "work/out/kept").iterdir()] == []


class Page(HTMLParser):
    """The elements of a page: (tag, attributes)."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.found: list[tuple[str, dict[str, str | None]]] = []
        self.text = path.read_text()
        self.feed(self.text)

    def handle_starttag(self, tag: str, attrs: list) -> None:
        self.found.append((tag, dict(attrs)))

    def of(self, tag: str) -> list[dict[str, str | None]]:
        return [own for name, own in self.found if name == tag]

    @property
    def looks(self) -> list[tuple[int, list[str]]]:
        found = re.search(r"looks = (.*), last = 4;", self.text)
        assert found
        return json.loads(found[1])


def test_the_sheet_shows_every_look_beside_the_base_model(project: Path, run: tuple[Path, Notes]) -> None:
    """Looks at 0, 2 and the end, 4; the first is the base model's, drawn once and shown beside all."""
    page = Page(run[0] / "out/preview.html")
    assert [at for at, _ in page.looks] == [0, 2, 4]
    images = page.of("img")
    assert [image["src"] for image in images] == [page.looks[at][1][n] for n in (0, 1) for at in (0, 2)]
    assert [image["alt"] for image in images[::2]] == [f"Base model: {prompt}" for prompt in PROMPTS]
    assert [image["alt"] for image in images[1::2]] == [f"Iteration 4: {prompt}" for prompt in PROMPTS]
    params = params_of(project)
    backbone, keys = load_backbone(params, project / "data/warmup"), [(prompt, 0) for prompt in PROMPTS]
    z = sample_latents(backbone, params, PROMPTS, keys, "preview", params.resolution)
    for uri, expected in zip(page.looks[0][1], backbone.decode(z), strict=True):
        assert np.array_equal(picture(uri), to_bytes(expected))
    assert not np.array_equal(picture(page.looks[0][1][0]), picture(page.looks[2][1][0]))


def picture(uri: str) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(uri.removeprefix("data:image/webp;base64,")))))


def test_the_sheet_is_one_file_that_all_can_read(run: tuple[Path, Notes]) -> None:
    page = Page(run[0] / "out/preview.html")
    (slider,) = (own for own in page.of("input") if own["type"] == "range")
    assert {own["for"] for own in page.of("label")} == {slider["id"]} and slider["aria-valuetext"] == "4 of 4"
    assert (slider["min"], slider["max"], slider["value"]) == ("0", "2", "2")
    assert page.of("html")[0]["lang"] == "en" and "width=device-width" in str(page.of("meta"))
    assert all(own.get("src") is None for own in page.of("script")) and not page.of("link")
    assert "http" not in page.text and "<b>" not in page.text


def test_a_killed_run_ends_with_the_same_sheet_and_loras(
    project: Path, tmp_path: Path, run: tuple[Path, Notes]
) -> None:
    """Killed in the fourth iteration: the checkpoint is of the third, and the look at the second remains."""
    params, notes = watched(params_of(project)), Notes()
    first = trainer(params, project, tmp_path / "work", loggers=Loggers([notes]))

    def kill(*_: object) -> None:
        if len(first.rows) == 3:
            raise SystemExit

    hook = first.lora[0].register_hook(kill)
    with pytest.raises(SystemExit):
        first.run()
    hook.remove()
    (tmp_path / "work/preview/0000004-0.webp").write_bytes(b"of a run that went on for longer")
    (tmp_path / "work/out/kept/iteration-0000004").mkdir()
    again = trainer(params, project, tmp_path / "work", loggers=Loggers([notes]))
    assert len(again.rows) == 3 and not (tmp_path / "work/out/kept/iteration-0000004").exists()
    again.run()
    again.export(tmp_path / "work/out")
    ours, theirs = (
        {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
        for root in (tmp_path / "work/out", run[0] / "out")
    )
    assert ours == theirs
    assert notes.told == run[1].told


def test_a_kept_lora_is_the_one_of_its_iteration(project: Path, run: tuple[Path, Notes], tmp_path: Path) -> None:
    """It draws what the sheet shows at that iteration."""
    kept = run[0] / "out/kept"
    assert sorted(path.name for path in kept.iterdir()) == ["iteration-0000002", "iteration-0000004"]
    params = params_of(project)
    backbone = load_backbone(params, project / "data/warmup")
    load_lora(backbone, kept / "iteration-0000002")
    with merged(backbone.denoiser):
        z = sample_latents(backbone, params, PROMPTS, [(prompt, 0) for prompt in PROMPTS], "preview", params.resolution)
    expected = to_bytes(backbone.decode(z)[0])
    assert np.array_equal(picture(Page(run[0] / "out/preview.html").looks[1][1][0]), expected)
    last, final = (
        read_safetensors(path) for path in sorted(run[0].glob("out/*/**/pytorch_lora_weights.safetensors"))[1:]
    )
    assert all(last[name].equal(final[name]) for name in final)


def test_curves_and_pictures_grow_where_the_results_will_stand(run: tuple[Path, Notes]) -> None:
    for file in ("curves.csv", "guard.csv", "preview.html", "kept/iteration-0000002/pytorch_lora_weights.safetensors"):
        assert (run[0] / "live" / file).read_bytes() == (run[0] / "out" / file).read_bytes()


def test_curves_are_there_at_the_first_checkpoint(project: Path, tmp_path: Path) -> None:
    growing = trainer(watched(params_of(project)), project, tmp_path / "work", tmp_path / "live")

    def look(*_: object) -> None:
        if len(growing.rows) == 3:
            with (tmp_path / "live/curves.csv").open() as file:
                assert [row["iteration"] for row in csv.DictReader(file)] == ["0", "1", "2"]
            raise SystemExit

    growing.lora[0].register_hook(look)
    with pytest.raises(SystemExit):
        growing.run()


def test_an_interrupted_run_and_the_one_that_goes_on_tell_everything_once(
    project: Path, tmp_path: Path, run: tuple[Path, Notes]
) -> None:
    """Ctrl-C in iteration 2, whose pictures were drawn: the run that goes on draws them again, and tells them."""
    before, after = Notes(), Notes()
    first = trainer(watched(params_of(project)), project, tmp_path / "work", loggers=Loggers([before]))

    def stop(*_: object) -> None:
        if len(first.rows) == 2:
            raise KeyboardInterrupt

    first.lora[0].register_hook(stop)
    with pytest.raises(Interrupted, match="interrupted at iteration 2 of 4"):
        first.run()
    trainer(watched(params_of(project)), project, tmp_path / "work", loggers=Loggers([after])).run()
    assert before.told + after.told == run[1].told


def test_loggers_are_told_everything_once_and_in_order(run: tuple[Path, Notes]) -> None:
    told = run[1].told
    assert [step for step, name in told if name == "train/loss"] == [0, 1, 2, 3]
    assert [step for step, name in told if name == "preview/1 a red ball"] == [0, 2, 4]
    assert [step for step, _ in told] == sorted(step for step, _ in told)
    assert {"train/i2t", "train/grad_norm", "train/skipped"} <= {name for _, name in told}


def test_the_guard_s_looks_are_told_too(project: Path, tiny: Path, tmp_path: Path) -> None:
    notes = Notes()
    trainer(guarded(project, tiny, every=2), project, tmp_path / "work", loggers=Loggers([notes])).run()
    assert [step for step, name in notes.told if name == "guard/score"] == [0, 2, 4]


def test_training_goes_on_without_a_logger_that_fails(
    project: Path, tmp_path: Path, run: tuple[Path, Notes], capsys: pytest.CaptureFixture
) -> None:
    lost, kept = Notes(fails=1), Notes()
    whole = trainer(watched(params_of(project)), project, tmp_path / "work", loggers=Loggers([lost, kept]))
    whole.run()
    whole.export(tmp_path / "work/out")
    for file in TRAINED:
        assert (tmp_path / "work/out" / file).read_bytes() == (run[0] / "out" / file).read_bytes(), file
    assert kept.told == run[1].told and {step for step, _ in lost.told} == {0}
    line = "notes stopped (ConnectionError: the network); training goes on without it\n"
    assert line in capsys.readouterr().err


def test_looks_need_prompts_that_the_text_encoder_reads(tiny: Path) -> None:
    with pytest.raises(ValueError, match=r"prompts is \[\]: expected a prompt or more, since every is 2"):
        PreviewParams(every=2, prompts=[])
    tokenizers = load_tokenizers(str(tiny / "sdxl"), None)
    long = PreviewParams(every=2, prompts=["a red ball", "a ball and " * 60 + "a cube"])
    with pytest.raises(UserError, match=r"train.preview.prompts, number 2: the prompt has .* shorten it"):
        check_prompts(long, tokenizers)
    check_prompts(long.model_copy(update={"every": 0}), tokenizers)


def test_the_bar_says_loss_likelihood_and_gradient(make_params) -> None:
    row = {"loss": 1.25, "i2t": 0.75, "grad_norm": 0.5}
    assert postfix(row, make_params(), True) == {"loss": "1.25", "log p": "-0.75", "gradient": "0.5"}
    assert postfix(row, make_params(), False) == {"loss": "1.25", "gradient": "0.5"}
    reward = make_params(captioner="clip_similarity")
    assert postfix(row, reward, True) == {"loss": "1.25", "score": "-0.75", "gradient": "0.5"}


def test_a_look_is_black_only_where_nothing_finite_is_drawn(
    make_params, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Any other error ends training: a page of black pictures would say that the model draws them."""
    raised: list[UserError] = [NotFinite("the denoiser: no finite numbers"), UserError("no embeddings of the prompt")]

    def draws(*args: object) -> Tensor:
        raise raised[0]

    monkeypatch.setattr("comat.training.preview.sample_latents", draws)
    monkeypatch.setattr("comat.training.preview.merged", lambda denoiser: nullcontext())
    section, params = PreviewParams(every=1, prompts=["a ball"]), make_params()
    preview = Preview(section, params, 1, SimpleNamespace(denoiser=None), tmp_path)
    (black,) = preview.look(0)
    assert not black.any()
    raised.pop(0)
    with pytest.raises(UserError, match="no embeddings of the prompt"):
        preview.look(1)


def test_a_run_that_patience_ends_at_a_look_is_finished(project: Path, tiny: Path, tmp_path: Path, monkeypatch) -> None:
    """Guard and sheet both look before iteration 2, of 4, and nothing got better since iteration 0."""
    params = watched(guarded(project, tiny, every=2, patience=1))
    notes = Notes()
    ended = trainer(params, project, tmp_path / "work", loggers=Loggers([notes]))
    monkeypatch.setattr(ended.guard, "judge", Verdicts([0.9, 0.1]))
    ended.run()
    ended.export(tmp_path / "work/out")
    assert [row["iteration"] for row in ended.rows] == [0, 1]
    assert [at for at, _ in Page(tmp_path / "work/out/preview.html").looks] == [0, 2]
    pictures = [step for step, name in notes.told if name.startswith("preview/")]
    assert pictures == [0] * len(PROMPTS) + [2] * len(PROMPTS)
