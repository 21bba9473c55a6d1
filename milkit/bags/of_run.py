"""The store behind a run, as those need it who go from the run's results back to its cells."""

from pathlib import Path

from milkit.bags.store import BagStore
from milkit.errors import RunError
from milkit.runs import read_json, run_settings


def store_of_run(run: Path) -> BagStore:
    """The store behind a run, where it is still the one that the run was made from; else a ``RunError``."""
    for name in ("settings.yaml", "folds.csv"):
        if not (run / name).is_file():
            msg = f"{run} is no finished run ({name} is missing); make one with `milkit train-mil`, or name its folder."
            raise RunError(msg)
    store, made_from = BagStore.open(run_settings(run)[1]), read_json(run / "provenance.json")
    for key, what in (("cohort_digest", "cells"), ("encoder_digest", "encoder")):
        if made_from.get(key) and made_from[key] != store.attributes.get(key):
            msg = (
                f"The store {store.path} has another {key} than when the run was made, so its {what} changed; give the "
                "store that the run was made from, or make the run again with `milkit train-mil`."
            )
            raise RunError(msg)
    return store
