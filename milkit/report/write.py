"""VERB run -> report folder: report.html, and beside it tables and figures, whole or not at all."""

import os
import shutil
from collections.abc import Generator, Iterator
from contextlib import closing
from itertools import chain, islice
from pathlib import Path

import pandas as pd
from markupsafe import Markup

from milkit.bags import source_texts
from milkit.privacy.gate import keep_allowed, release
from milkit.progress import progress
from milkit.report.artefacts import summed
from milkit.report.beside import write_beside
from milkit.report.class_results import class_figures
from milkit.report.folder import exchange, keep_others
from milkit.report.gallery import Picture, encode
from milkit.report.page import patient_card, patient_page, report_page, shared_parts, targets_page
from milkit.report.patients import Patient, all_patients
from milkit.report.results import Results, read_results
from milkit.report.settings import ReportSettings
from milkit.report.summary import warnings
from milkit.report.target_results import read_targets
from milkit.report.targets_page import target_figures, target_warnings
from milkit.runs import whole_folder, write_bytes, write_text

CARDS_LIMIT = 24_000_000
"""Bytes of all patients' cards in one file; what is around them fits into the remaining million of a 25 MB page."""

Illustrated = tuple[Patient, list[Picture]]


def write_report(run: Path, settings: ReportSettings) -> Path:
    """Write ``<run>/report/`` and return the path of its ``report.html``.

    The folder is built beside the old one, which is replaced only when the new one is complete; files in it that
    milkit did not write are kept. A cohort whose pictures exceed ``CARDS_LIMIT`` gets one page a patient in
    ``patients/``, or with ``settings.single_file`` reduced pictures in one file.
    """
    targets = read_targets(run)
    results = read_results(run, targets)
    patients = all_patients(results, settings)
    fresh = run / f".report.new-{os.getpid()}"
    shutil.rmtree(fresh, ignore_errors=True)
    with whole_folder(fresh) as folder:
        drawn = target_figures(results, targets) if targets else class_figures(results)
        for name, figure in drawn.items():
            write_text(folder / "figures" / f"{name}.svg", f'<?xml version="1.0" encoding="utf-8"?>\n{figure}')
            write_bytes(folder / "figures" / f"{name}.pdf", figure.pdf())
        write_beside(folder, run, results, patients, settings.top)
        cards, n_unreadable, reduced = _cards(results, patients, folder, single_file=settings.single_file)
        n_shown = sum(len(patient.chosen) for patient in patients)
        faults = [*target_warnings(targets), *warnings(results, n_shown, n_unreadable)]
        total = summed({patient.patient_id: patient.artefacts for patient in patients if patient.artefacts})
        around = shared_parts(results, run.resolve().name, cards, drawn, faults, total, reduced=reduced)
        page = targets_page(results, targets, around) if targets else report_page(results, around)
        write_text(folder / "report.html", page)
        keep_others(run / "report", folder)
        known = source_texts(results.store)
        allowed = release(folder, "report", reason=settings.allow_identifiers, known=known)
    exchange(run / "report", fresh)
    keep_allowed(run / "provenance.json", allowed)
    return run / "report" / "report.html"


def _cards(
    results: Results, patients: list[Patient], folder: Path, *, single_file: bool
) -> tuple[list[Markup], int, bool]:
    """A card a patient, how many of their images could not be read, and whether the pictures are reduced."""
    waiting = _illustrate(results, patients, reduced=False)
    done: list[Illustrated] = []
    cards: list[Markup] = []
    size = 0
    for patient, pictures in waiting:
        done.append((patient, pictures))
        cards.append(patient_card(patient, pictures))
        size += len(cards[-1].encode())
        if size > CARDS_LIMIT:
            break
    else:
        return cards, _unreadable(done), False
    if single_file:
        waiting.close()
        small = list(_illustrate(results, patients, reduced=True))
        return [patient_card(patient, pictures) for patient, pictures in small], _unreadable(small), True
    return *_pages(results, patients, chain(done, waiting), folder), False


def _pages(
    results: Results, patients: list[Patient], illustrated: Iterator[Illustrated], folder: Path
) -> tuple[list[Markup], int]:
    """Write one page a patient, and return the cards that link to them and how many images could not be read."""
    cards, n_unreadable = [], 0
    neighbours = zip([None, *patients[:-1]], [*patients[1:], None], strict=True)
    for (patient, pictures), (previous, following) in zip(illustrated, neighbours, strict=True):
        page = f"patients/{patient.slug}.html"
        write_text(folder / page, patient_page(results, patient, pictures, previous, following))
        cards.append(patient_card(patient, [], page=page))
        n_unreadable += _unreadable([(patient, pictures)])
    return cards, n_unreadable


def _illustrate(results: Results, patients: list[Patient], *, reduced: bool) -> Generator[Illustrated, None, None]:
    """Patients with their pictures, encoded in the background for all patients in one go."""
    chosen = pd.concat([patient.chosen for patient in patients], ignore_index=True)
    pictures = encode(chosen, results.root, reduced=reduced, micrometres_per_pixel=results.micrometres_per_pixel)
    with progress("report", len(chosen), "images") as advance, closing(pictures):
        for patient in patients:
            yield patient, list(islice(pictures, len(patient.chosen)))
            advance(len(patient.chosen))


def _unreadable(illustrated: list[Illustrated]) -> int:
    return sum(not picture.uri for _, pictures in illustrated for picture in pictures)
