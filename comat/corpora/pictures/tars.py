"""Webdataset: tar files of images with a text or JSON of the same name beside each; read in place, not unpacked."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Sequence
from pathlib import Path

from comat.corpora.pictures.listed import CAPTION_KEYS, SUFFIXES, Listed, Place, spoken
from comat.errors import UserError, first_line
from comat.storage.places import inside
from comat.storage.prompt_text import LINE_END

TEXTS = (".txt", ".caption", ".json")
DOTTED = "webdataset ends a sample's name at the first dot; rename those that are samples of their own"
SECOND = "another image of the same sample stands before them"


def tar_listing(folder: Path, tars: Sequence[Path]) -> list[Listed]:
    """The images of tar files, each named `<tar>/<member>`; those that are no sample's image say why.

    Raises:
        UserError: if a file is no whole tar file or compressed, a member stands twice, or a name leads out of it.
    """
    found: list[Listed] = []
    for tar in tars:
        prefix = tar.relative_to(folder).as_posix() if tar != folder else tar.name
        try:
            with tarfile.open(tar, "r:") as archive:
                found += _members(archive, tar, prefix)
        except (tarfile.TarError, EOFError) as error:
            why = first_line(error)
            raise UserError(f"{tar}: not a whole tar file ({why}); decompress it first if it is compressed") from None
    return found


def _members(archive: tarfile.TarFile, tar: Path, prefix: str) -> list[Listed]:
    images: dict[str, tuple[str, Place]] = {}
    captions: dict[str, tuple[str, ...]] = {}
    left_out: list[tuple[str, Place, str]] = []
    seen: set[str] = set()
    for member in archive:
        if not member.isreg() or member.issparse():
            continue
        where = f"{tar}, member {member.name[:80]!r}"
        inside(tar, member.name, where)
        if member.name in seen:
            raise UserError(f"{where}: stands twice")
        seen.add(member.name)
        folder, _, base = member.name.rpartition("/")
        stem, _, suffix = base.partition(".")  # as webdataset has it: the key ends at the first dot
        key, kind = f"{folder}/{stem}", f".{suffix.lower()}"
        place = Place(tar, member.offset_data, member.size)
        if kind in SUFFIXES and key not in images:
            images[key] = member.name, place
        elif stem and Path(base).suffix.lower() in SUFFIXES:  # without a stem it is hidden, as macOS' `._a.jpg`
            left_out.append((member.name, place, SECOND if kind in SUFFIXES else DOTTED))
        elif kind in TEXTS:
            file = archive.extractfile(member)
            text = _text(file.read() if file else b"", where)
            said = _of_json(text, where) if kind == ".json" else tuple(LINE_END.split(text))
            captions[key] = captions.get(key) or said
    found = [Listed(f"{prefix}/{name}", place, captions.get(key, ())) for key, (name, place) in images.items()]
    return found + [Listed(f"{prefix}/{name}", place, (), reason) for name, place, reason in left_out]


def _text(data: bytes, where: str) -> str:
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{where}: not UTF-8 ({first_line(error)})") from None


def _of_json(text: str, where: str) -> tuple[str, ...]:
    try:
        row = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: not JSON ({error})") from None
    key = next((key for key in CAPTION_KEYS if isinstance(row, dict) and key in row), None)
    return spoken(row[key], where) if key else ()
