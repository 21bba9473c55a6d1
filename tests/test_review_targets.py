"""A blinded review of a run on survival, numbers or several targets, out and back in."""

import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from review_toys import key_of, save_json
from toys import followed_patients, make_store

from milkit.bags import BagStore
from milkit.explain.question import read_question
from milkit.mil.crossval import cross_validate
from milkit.review.out import write_review
from milkit.review.unblind import read_review
from milkit.settings import MilSettings

TARGETS = {
    "survival": ["survival"],
    "number": ["regression:age"],
    "several": ["regression:age", "survival", "label"],
}


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> BagStore:
    """Thirty followed patients with a drawn image of every cell; the age of one and the outcome of another are lost."""
    folder = tmp_path_factory.mktemp("review-targets")
    patients = followed_patients(10, cycle=5)
    patients.loc["P05", "age"] = np.nan
    patients.loc["P06", ["time", "event"]] = np.nan
    made = make_store(folder / "toy.zarr", patients)
    generator = np.random.default_rng(0)
    for path in made.cells["path"]:
        (folder / "images" / path).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(generator.integers(0, 255, (8, 8, 3), dtype=np.uint8)).save(folder / "images" / path)
    (made.path / "source.json").write_text(json.dumps({"root": str(folder / "images")}))
    return BagStore.open(made.path)


@pytest.fixture(scope="module", params=list(TARGETS))
def run(request: pytest.FixtureRequest, store: BagStore) -> Path:
    path = store.path.parent / "runs" / str(request.param)
    training = {"max_epochs": 2, "learning_rate": 0.01}
    settings: dict[str, Any] = {"folds": 3, "bootstrap": 100, "training": training, "target": TARGETS[request.param]}
    cross_validate(store, MilSettings.model_validate(settings | {"store": store.path}), path)
    return path


def test_a_small_review_shows_as_many_patients_of_either_half_of_the_first_target(run: Path) -> None:
    items = pd.DataFrame(key_of(write_review(run, n_cells=24, n_twice=0))["items"])
    halves = read_question(run, None).predicted
    assert {half.partition(" ")[0] for half in halves} == {"higher", "lower"}
    counts = halves.reindex(items["patient_id"].unique()).value_counts()
    assert counts.sum() == 8 or counts.sum() == 7  # of several targets, one patient may lack the first
    assert counts.max() - counts.min() <= 1
    assert items.groupby("patient_id").size().eq(3).all()


def test_the_page_says_nothing_of_outcomes_and_the_labels_come_back(run: Path, tmp_path: Path) -> None:
    made, names = write_review(run, n_cells=24, n_twice=0), read_question(run, None).predicted.index
    page = re.sub(r"data:image/webp;base64,[A-Za-z0-9+/=]+", "", made.page.read_text(encoding="utf-8"))
    shown = page.split("<main")[1].split("<script")[0].lower()
    assert not [
        word
        for word in ("risk", "surviv", "higher", "lower", "event", *(str(name).lower() for name in names))
        if word in shown
    ]
    key = key_of(made)
    labels = {item["code"]: "lymphocyte" if item["group"] == "top" else "neutrophil" for item in key["items"]}
    result = read_review([save_json(tmp_path / "a.json", made, labels)], [run])
    assert result["n_cells"] == 24
    found = {figure["cell_type"]: figure["all_cells"]["estimate"] for figure in result["against_model"]}
    assert found["lymphocyte"] == 1.0
    assert found["neutrophil"] == 0.0
    assert len(pd.read_csv(run / "expert_labels.csv")) == 24
