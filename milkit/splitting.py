"""The folds that settings ask for: by class, by group, by site, or as published."""

import logging
from typing import Any

import pandas as pd

from milkit.errors import FoldError, first_rows
from milkit.folds import Folds
from milkit.group_folds import grouped, leave_site_out
from milkit.published_folds import Names, published_folds
from milkit.settings import MilSettings

log = logging.getLogger(__name__)


def make_folds(patients: pd.DataFrame, settings: MilSettings, named: Names = lambda ids: ids) -> Folds:
    """Split the patients of a store as ``splits``, ``by`` and ``folds_file`` say; what cannot be is a ``FoldError``.

    Args:
        patients: Index patient_id, with ``label`` and the column that ``by`` names.
        settings: Of `milkit train-mil`.
        named: Turns the ids of ``folds_file`` into those of the patients.
    """
    labels = patients["label"]
    if settings.folds_file is not None:
        if settings.splits != "partition":
            msg = (
                f"Both --splits {settings.splits} and --folds-file {settings.folds_file} were given, expected one way "
                "to split; leave one of them out."
            )
            raise FoldError(msg)
        if settings.repeats > 1:
            msg = (
                f"Both --repeats {settings.repeats} and --folds-file {settings.folds_file} were given, where the file "
                "says how often to split; leave --repeats out, or give --seeds to train several times."
            )
            raise FoldError(msg)
        parts = {"inner": settings.folds, "seed": settings.seed}
        published = published_folds(settings.folds_file, labels, settings.by, **parts, named=named)
        for note in published.notes:
            log.warning(note)
        return published.folds
    by_site = settings.splits != "partition"
    if not by_site and settings.by is None:
        return Folds.stratified(labels, settings.folds, seed=settings.seed, repeats=settings.repeats)
    groups = _column(patients, settings.by or "site")
    if settings.splits == "leave-site-out":
        return leave_site_out(labels, groups, inner=settings.folds, seed=settings.seed, repeats=settings.repeats)
    return grouped(labels, groups, settings.folds, seed=settings.seed, repeats=settings.repeats)


def _column(patients: pd.DataFrame, name: str) -> "pd.Series[Any]":
    if name == "label" or name not in patients:
        known = [str(column) for column in patients if column != "label"]
        msg = (
            f"Patients were to be kept together by '{name}', which is no column of the store's patients beside their "
            f"label; name one with --by ({first_rows(known, 10) or 'there is none'})."
        )
        raise FoldError(msg)
    return patients[name]
