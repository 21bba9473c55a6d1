"""What a blood count, age, sex and the number of cells know of the label, before any image: ``milkit`` on tables alone.

    python benchmarks/tables.py --aml-hehr metadata.csv --lymphocytosis FOLDER

Ten times five stratified folds over patients; multinomial logistic regressions whose encoding is fitted on the training
patients; balanced accuracy and macro AUROC of the pooled out-of-fold predictions, averaged over the repeats, with BCa
intervals over patients (``milkit.audit.table_controls``). Models are not trained again within the intervals.

AML-Hehr. The published table alone; ``instance_count`` stands for the number of cells. Controls have no leucocyte
count, so that its absence tells them, and their differential count is that of healthy donors. The second part is of the
leukaemias alone, which is the question that a blood count does not answer by itself.

Lymphocytosis. The cohort's own recipe; the number of cells is that of the images there, at most 32 a patient.
"""

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from milkit.audit.table_controls import SIZE, table_controls
from milkit.clinical_tables import read_table
from milkit.cohort import find_recipe, load_cohort, numeric
from milkit.folds import Folds

REPEATS, FOLDS, SEED = 10, 5, 0


def main() -> None:
    """Evaluate, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--aml-hehr", type=Path, metavar="CSV", help="the published metadata.csv")
    parser.add_argument("--lymphocytosis", type=Path, metavar="FOLDER", help="the folder that holds trainset/")
    parser.add_argument("--json", type=Path, metavar="FILE")
    arguments = parser.parse_args()
    results = {}
    if arguments.aml_hehr:
        patients, sizes = aml_hehr(arguments.aml_hehr)
        results["aml_hehr"] = evaluate(patients, sizes, hehr_sets(patients))
        ill = (patients["label"] != "control").to_numpy()
        results["aml_hehr, leukaemias"] = evaluate(patients[ill], sizes[ill], hehr_sets(patients))
    if arguments.lymphocytosis:
        patients, sizes = lymphocytosis(arguments.lymphocytosis)
        results["lymphocytosis"] = evaluate(patients, sizes, lymphocytosis_sets())
    for name, result in results.items():
        show(name, result)
    if arguments.json:
        arguments.json.write_text(json.dumps(results, indent=2) + "\n")


def aml_hehr(path: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The published table: label, age, sex, leucocytes and the differential count; and the number of images."""
    table = read_table(path).set_index("patient_id").sort_index()
    patients = pd.DataFrame({"label": table["bag_label"], "age": numeric(table["age"])})
    patients["sex"] = table["sex_1f_2m"].map({"1": "F", "2": "M"})
    for name in table.columns:
        if name.startswith("leucocytes_per"):
            patients["leucocytes"] = numeric(table[name])
        elif name.startswith("pb_") and name != "pb_total":
            patients[name] = numeric(table[name])
    return patients, numeric(table["instance_count"]).to_numpy(dtype=np.int64)


def hehr_sets(patients: pd.DataFrame) -> dict[str, list[str]]:
    """Columns by title."""
    differential = [str(name) for name in patients if str(name).startswith("pb_")]
    everything = ["age", "sex", *differential, SIZE]
    sets: dict[str, list[str]] = {"all but leucocytes": everything, "differential count": differential}
    sets |= {"blasts": ["pb_myeloblast"]}
    return sets | {"age": ["age"], "sex": ["sex"], "leucocytes": ["leucocytes"], SIZE: [SIZE]}


def lymphocytosis(folder: Path) -> tuple[pd.DataFrame, np.ndarray]:
    """The patients of the cohort, and their images."""
    cohort = load_cohort(find_recipe("lymphocytosis", folder))
    counts = cohort.cells["patient_id"].value_counts()
    return cohort.patients, counts[cohort.patients.index].to_numpy(dtype=np.int64)


def lymphocytosis_sets() -> dict[str, list[str]]:
    """Columns by title."""
    covariates = ["lymphocyte_count", "birth_year", "sex"]
    sets = {"all": [*covariates, SIZE], "count, birth year, sex": covariates, "lymphocyte count": ["lymphocyte_count"]}
    return sets | {"birth year": ["birth_year"], "sex": ["sex"], SIZE: [SIZE]}


def evaluate(patients: pd.DataFrame, sizes: np.ndarray, sets: dict[str, list[str]]) -> dict[str, Any]:
    """All sets of columns on the same folds."""
    folds = Folds.stratified(patients["label"], FOLDS, seed=SEED, repeats=REPEATS)
    return table_controls(patients, sizes, sets, folds, seed=SEED)


def show(name: str, result: dict[str, Any]) -> None:
    """Print a cohort's table: both figures, then recall and AUROC of each class."""
    chance = result["chance"]["balanced_accuracy"]
    print(f"\n{name}: {result['n_patients']} patients, chance {chance:.2f}, folds {result['folds_digest'][:8]}")
    print(f"{'columns':<24}{'balanced accuracy':>22}{'macro AUROC':>22}")
    for title, control in result["controls"].items():
        print(f"{title:<24}{_figure(control['balanced_accuracy']):>22}{_figure(control['auroc_macro']):>22}")
    for metric in ("recall", "auroc"):
        classes = next(iter(result["controls"].values()))["per_class"]
        print("".join([f"{metric:<24}", *(_head(label, own["n"]) for label, own in classes.items())]))
        for title, control in result["controls"].items():
            figures = (_figure(own[metric]) for own in control["per_class"].values())
            print("".join([f"{title:<24}", *(f"{figure:>22}" for figure in figures)]))


def _head(label: str, n: int) -> str:
    return f"{f'{label} ({n})':>22}"


def _figure(figure: dict[str, float | None]) -> str:
    return f"{figure['estimate']:.2f} ({figure['ci_low']:.2f}-{figure['ci_high']:.2f})"


if __name__ == "__main__":
    main()
