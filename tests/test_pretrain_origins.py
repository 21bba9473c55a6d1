"""What a training learned from: it goes on with nothing else, alone in its folder, and its encoder says what it saw."""

import json
import math
import os
import re
import shutil
import socket
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pandas as pd
import pytest
import torch
from encoder_toys import described_vit, vit_state
from pretrain_toys import TINY, draw_acevedo, settings_of
from safetensors.torch import load_file, save_file

from encoders.dinobloom import SEEN
from encoders.dinov2 import pretrain as verb
from encoders.dinov2.cell_images import CellImages
from encoders.dinov2.checkpoints import CHECKPOINT, read_state
from encoders.dinov2.history import History
from encoders.dinov2.label_chains import LabelChains
from encoders.dinov2.loop import BEST, LAST
from encoders.dinov2.monitors import Validation
from encoders.dinov2.origins import origins_of, refuse_other_origins, refuse_shared_images, seen_by, seen_by_weights
from encoders.dinov2.pretrain import pretrain
from encoders.dinov2.pretrain_settings import PretrainSettings
from encoders.pretrained import pretrained, read_description
from encoders.vit import VitShape
from encoders.weights import Weights, read_weights
from milkit.bags.lock import acquire_lock, release_lock
from milkit.cohort import Cohort
from milkit.errors import CohortError, RunError, StoreError
from milkit.taxonomy import Taxonomy

SHORT = TINY["schedule"] | {"iterations": 4}
SHAPE = VitShape(dim=32, depth=1, heads=1, positions=10)


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """``cells`` to learn from, and ``others`` that validate."""
    folder = tmp_path_factory.mktemp("drawn")
    draw_acevedo(folder / "cells", 2)
    draw_acevedo(folder / "others", 2, first=10)
    return folder


@pytest.fixture(autouse=True)
def _undrawn(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(History, "draw", lambda *_: None)


def given(drawn: Path, *, validated: bool = False, **other: Any) -> PretrainSettings:
    parts: dict[str, Any] = {"schedule": SHORT, "batch_size": 2, "checkpoint_every": 1, "evaluate_every": 1} | other
    if validated:
        parts = {"validation": {"cohort": "acevedo", "root": str(drawn / "others")}} | parts
    return settings_of(drawn / "cells", **parts)


def rewrite(folder: Path, change: Callable[[dict[str, Any]], object]) -> None:
    """Change what a checkpoint says beside its tensors."""
    state = read_state(folder)
    assert state
    change(state)
    save_file(load_file(folder / CHECKPOINT), folder / CHECKPOINT, {"milkit": json.dumps(state)})


# --- going on with the same -------------------------------------------------------------------------------------------


def test_a_training_whose_images_have_changed_is_refused_and_left_alone(drawn: Path, tmp_path: Path) -> None:
    shutil.copytree(drawn / "cells", tmp_path / "cells")
    pretrain(given(tmp_path, stop_after=1), tmp_path / "run")
    (tmp_path / "cells" / "monocyte" / "MO_1.jpg").unlink()
    before = (tmp_path / "run" / CHECKPOINT).read_bytes()
    with pytest.raises(RunError) as caught:
        pretrain(given(tmp_path), tmp_path / "run")
    assert str(caught.value) == (
        f"The training in {tmp_path / 'run'} was begun with other data (acevedo had 12 cells and has 11), and goes on "
        "only with its own; bring those back, or give another --name."
    )
    assert (tmp_path / "run" / CHECKPOINT).read_bytes() == before


def test_a_checkpoint_that_does_not_say_what_it_is_of_is_gone_on_with(drawn: Path, tmp_path: Path) -> None:
    """As those of earlier versions; what was learned is the same, and from then on it does say it."""
    pretrain(given(drawn, validated=True, stop_after=2), tmp_path / "old")
    rewrite(tmp_path / "old", lambda state: state.pop("origins"))
    pretrain(given(drawn, validated=True), tmp_path / "old")
    pretrain(given(drawn, validated=True), tmp_path / "whole")
    assert (read_state(tmp_path / "old") or {})["origins"] == (read_state(tmp_path / "whole") or {})["origins"]
    old, whole = (load_file(tmp_path / name / CHECKPOINT) for name in ("old", "whole"))
    assert all(torch.equal(old[name], whole[name]) for name in whole)


def cohort_of(cells: dict[str, str], root: Path = Path("here"), name: str = "mine") -> Cohort:
    """Cells by their path, with their label."""
    table = pd.DataFrame({"cell_id": [*cells], "patient_id": None, "path": [*cells], "cell_type": [*cells.values()]})
    patients = pd.DataFrame(index=pd.Index([], name="patient_id", dtype=object))
    return Cohort(name, root, patients, table.astype(object), ())


CELLS = {"a.png": "monocyte", "b.png": "basophil", "c.png": "monocyte"}
CHAINS = LabelChains(Taxonomy.load(), (("basophil",), ("monocyte",)))


def facts_of(
    cells: dict[str, str], *, chains: LabelChains | None = CHAINS, validating: Cohort | None = None, **other: Any
) -> dict[str, Any]:
    cohort = cohort_of(cells, **other)
    labels = [int(kind == "monocyte") for kind in cohort.cells["cell_type"]]
    images = CellImages.of(cohort, labels if chains else None)
    return origins_of(settings_of(None, validation_cells=7), [cohort], validating, [images], chains)


LESS = dict(list(CHAINS.taxonomy.parents.items())[:-1])


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        (facts_of(CELLS | {"d.png": "monocyte"}), "mine had 3 cells and has 4"),
        (facts_of({"a.png": "monocyte", "b.png": "basophil", "x.png": "monocyte"}), "the 3 cells of mine"),
        (facts_of(CELLS | {"c.png": "basophil"}), "the labels of mine"),
        (facts_of(CELLS, chains=replace(CHAINS, taxonomy=Taxonomy("blood", LESS))), "the taxonomy or what labels mean"),
        (
            facts_of(CELLS, chains=replace(CHAINS, labels=(("basophil",), ("band",)))),
            "the taxonomy or what labels mean",
        ),
    ],
    ids=["more", "others", "labels", "taxonomy", "meaning"],
)
def test_other_images_labels_and_meanings_are_told_apart(changed: dict[str, Any], said: str) -> None:
    with pytest.raises(RunError, match=re.escape(f"was begun with other data ({said}")):
        refuse_other_origins(Path("run"), facts_of(CELLS), changed)


def test_images_that_were_moved_and_other_cells_that_validate_are_the_same_to_learn_from() -> None:
    same = facts_of(CELLS, root=Path("elsewhere"), validating=cohort_of({"v.png": "monocyte"}))
    refuse_other_origins(Path("run"), facts_of(CELLS), same)


def test_labels_that_are_not_learned_from_may_change() -> None:
    refuse_other_origins(Path("run"), facts_of(CELLS, chains=None), facts_of(dict.fromkeys(CELLS, "b"), chains=None))


def test_a_training_goes_on_in_the_precision_that_auto_came_to(drawn: Path, tmp_path: Path) -> None:
    """By name, too; on other hardware, auto would come to another one."""
    pretrain(given(drawn, precision="fp32", stop_after=1), tmp_path)
    rewrite(tmp_path, lambda state: state["settings"].update(precision="auto"))
    pretrain(given(drawn, precision="fp32", stop_after=2), tmp_path)
    rewrite(tmp_path, lambda state: state["origins"].update(precision="bfloat16"))
    with pytest.raises(RunError, match=r"begun with other settings \(precision\), and goes on only with its own"):
        pretrain(given(drawn, precision="fp32"), tmp_path)


def test_the_provenance_has_the_digests_of_all_data(drawn: Path, tmp_path: Path) -> None:
    pretrain(given(drawn, validated=True, supervision={"batch_size": 2}, stop_after=1), tmp_path)
    found = json.loads((tmp_path / "provenance.json").read_text())
    (source,) = found["sources"]
    assert (source["cohort"], source["cells"], found["validation"]["cells"]) == ("acevedo", 12, 12)
    digests = [source["sha256"], source["labels_sha256"], found["taxonomy"]["sha256"], found["validation"]["sha256"]]
    assert len({*digests}) == 4
    assert all(re.fullmatch("[0-9a-f]{64}", digest) for digest in digests)
    assert (found["precision"], found["weights"]) == ("float32", None)
    assert (read_state(tmp_path) or {})["origins"].items() <= found.items()


# --- validation -------------------------------------------------------------------------------------------------------


def test_cells_that_are_learned_from_do_not_validate(drawn: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    both = {"cohort": "acevedo", "root": str(drawn / "others" / ".." / "cells")}
    with pytest.raises(CohortError) as caught:
        pretrain(given(drawn, validation=both), folder)
    assert str(caught.value) == (
        "12 files of the validation 'acevedo' are also among those of 'acevedo' to learn from (basophil/BA_0.jpg the "
        "first), expected other ones; give it such, as another part of the cohort."
    )
    assert not folder.exists()


def test_files_are_the_same_by_where_they_lie_and_not_by_their_name(tmp_path: Path) -> None:
    def at(root: str, *paths: str, name: str = "mine") -> Cohort:
        return cohort_of(dict.fromkeys(paths, "monocyte"), tmp_path / root, name)

    sources = [at("one", "a.png", "deep/b.png"), at("two", "c.png")]
    refuse_shared_images(sources, at("three", "a.png", "c.png"))
    with pytest.raises(
        CohortError, match=r"^1 files of the validation 'v' .* 'mine' to learn from \(b.png the first\)"
    ):
        refuse_shared_images(sources, at("one/deep", "b.png", "d.png", name="v"))


def scoring(monkeypatch: pytest.MonkeyPatch, *scores: float) -> None:
    found = iter(scores)
    monkeypatch.setattr(Validation, "evaluate", lambda *_, **__: {"knn_20": next(found)})


@pytest.mark.parametrize("says", [True, False], ids=["new", "earlier version"])
def test_a_score_on_other_cells_is_no_better_one(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    scoring(monkeypatch, 0.9, 0.4, 0.3)
    pretrain(given(drawn, validated=True, stop_after=1), tmp_path)
    if not says:
        rewrite(tmp_path, lambda state: state.pop("origins"))
    first = (tmp_path / BEST).read_bytes()
    done = pretrain(given(drawn, validated=True, validation_cells=6, stop_after=3), tmp_path)
    assert (done.score, done.weights) == (0.4, tmp_path / BEST)
    assert (tmp_path / BEST).read_bytes() != first
    assert read_description(tmp_path / BEST)["iteration"] == 2


@pytest.mark.parametrize("says", [True, False], ids=["new", "earlier version"])
def test_a_score_on_the_same_cells_elsewhere_is_remembered(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, says: bool
) -> None:
    scoring(monkeypatch, 0.9, 0.4)
    pretrain(given(drawn, validated=True, stop_after=1), tmp_path / "run")
    if not says:
        rewrite(tmp_path / "run", lambda state: state.pop("origins"))
    shutil.copytree(drawn, tmp_path / "moved")
    done = pretrain(given(tmp_path / "moved", validated=True, stop_after=2), tmp_path / "run")
    assert (done.score, read_description(done.weights)["iteration"]) == (0.9, 1)


def test_without_a_validation_any_more_the_last_teacher_is_the_one_to_use(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring(monkeypatch, 0.9)
    pretrain(given(drawn, validated=True, stop_after=1), tmp_path)
    done = pretrain(given(drawn, stop_after=2), tmp_path)
    assert (done.score, done.weights) == (None, tmp_path / LAST)


def test_weights_say_the_iteration_and_the_score_that_they_are_of(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scoring(monkeypatch, 0.2, 0.7, math.nan, 0.6)
    pretrain(given(drawn, validated=True), tmp_path)
    best, last = read_description(tmp_path / BEST), read_description(tmp_path / LAST)
    assert (best["iteration"], best["knn_20"], last["iteration"]) == (2, 0.7, 4)
    assert "knn_20" not in last


# --- what was seen ----------------------------------------------------------------------------------------------------


def test_an_encoder_has_seen_its_sources_its_validation_and_what_its_start_had_seen() -> None:
    """What a reader of any images read goes by its recipe's name, which says which images they are."""
    sources = [{"cohort": {"name": "ours", "factory": "tabular"}}, {"cohort": {"name": "a_part", "factory": "acevedo"}}]
    chosen = settings_of(None, sources=sources, validation={"cohort": {"name": "theirs", "factory": "tabular"}})
    assert seen_by(chosen, ("lvd142m", "ours")) == ["acevedo", "lvd142m", "ours", "theirs"]
    assert seen_by(chosen.model_copy(update={"validation": None}), ()) == ["acevedo", "ours"]


@pytest.mark.parametrize(("positions", "seen"), [(257, SEEN), (1370, ("lvd142m",)), (10, ("start.pth",))])
def test_published_weights_have_seen_what_their_authors_say_and_of_others_nothing_is_known(
    positions: int, seen: tuple[str, ...]
) -> None:
    tensors = {"pos_embed": torch.zeros(1, positions, 4)}
    assert seen_by_weights(Path("gone/start.pth"), Weights("start.pth", tensors, "flat", "")) == seen


def test_weights_of_our_own_say_what_they_have_seen(tmp_path: Path) -> None:
    path = described_vit(tmp_path / "own.safetensors", SHAPE, seen=["bccd", "ours"])
    assert seen_by_weights(path, read_weights(path)) == ("bccd", "ours")


def test_what_the_start_had_seen_is_remembered_when_it_is_gone(drawn: Path, tmp_path: Path) -> None:
    start = described_vit(tmp_path / "start.safetensors", SHAPE, seen=["bccd"], image_size=42)
    pretrain(given(drawn, weights=str(start), stop_after=1), tmp_path / "run")
    start.unlink()
    done = pretrain(given(drawn, weights=str(start), stop_after=2), tmp_path / "run")
    assert pretrained(done.weights).seen == ("acevedo", "bccd")
    about = (read_state(tmp_path / "run") or {})["origins"]["weights"]
    assert (about["file"], len(about["sha256"])) == ("start.safetensors", 64)


def test_of_a_start_that_an_earlier_version_did_not_describe_the_name_is_known(drawn: Path, tmp_path: Path) -> None:
    save_file(vit_state(SHAPE), tmp_path / "start.safetensors")
    chosen = given(drawn, weights=str(tmp_path / "start.safetensors"), stop_after=1)
    pretrain(chosen, tmp_path / "run")
    rewrite(tmp_path / "run", lambda state: state.pop("origins"))
    done = pretrain(chosen.model_copy(update={"stop_after": 2}), tmp_path / "run")
    assert pretrained(done.weights).seen == ("acevedo", "start.safetensors")


# --- one process at a time --------------------------------------------------------------------------------------------


def test_a_second_process_is_told_who_trains(drawn: Path, tmp_path: Path) -> None:
    """Also before the first checkpoint; and afterwards the folder is free."""
    handle = acquire_lock(tmp_path, "the training")
    with pytest.raises(StoreError) as caught:
        pretrain(given(drawn), tmp_path)
    who = f"Process {os.getpid()} on {socket.gethostname()} has been writing the training {tmp_path} since "
    assert str(caught.value).startswith(who)
    assert str(caught.value).endswith("; wait until it has finished, or stop it, then run the command again.")
    release_lock(handle)
    for stop in (1, 2):
        pretrain(given(drawn, stop_after=stop), tmp_path)
    release_lock(acquire_lock(tmp_path))


def test_a_folder_is_free_again_when_a_training_was_refused_or_interrupted(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pretrain(given(drawn, stop_after=1), tmp_path)
    with pytest.raises(RunError):
        pretrain(given(drawn, seed=1), tmp_path)
    release_lock(acquire_lock(tmp_path))

    def interrupted(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(verb.Training, "run", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pretrain(given(drawn), tmp_path)
    release_lock(acquire_lock(tmp_path))


def test_what_another_process_has_trained_meanwhile_is_not_begun_anew(
    drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It came after this process had looked for a checkpoint, and before it began."""
    folder, build = tmp_path / "run", verb.networks_of

    def slowly(*parts: Any) -> Any:
        monkeypatch.setattr(verb, "networks_of", build)
        pretrain(given(drawn, stop_after=1), folder)
        return build(*parts)

    monkeypatch.setattr(verb, "networks_of", slowly)
    with pytest.raises(RunError, match=r"^Another process has trained in .*run meanwhile; run the command again to go"):
        pretrain(given(drawn), folder)
    assert (read_state(folder) or {})["iteration"] == 1
