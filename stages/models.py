"""The models that the parameters name → models.lock.json: id, commit and sha256 of every file used."""

from __future__ import annotations

from comat.errors import main_guard
from comat.params import load
from comat.running.stage import options


@main_guard
def main() -> None:
    args = options(__doc__, [], "models")
    params = load(args.params)

    from comat.models.record import write_lock

    write_lock(params, args.out)
    if params.dialogues:
        from comat.captioners.load import check_dialogue

        for key, own in params.dialogues.items():
            check_dialogue(own, key)


if __name__ == "__main__":
    main()
