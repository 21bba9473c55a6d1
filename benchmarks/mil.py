"""MIL training against the usual loop, in one run: ``python benchmarks/mil.py [--json FILE]``.

189 patients of five classes with 99 to 500 cells each, of 384 and of 1,024 features, in memory. One fold-epoch is an
epoch over the training patients of a fold (113) and a look at its validation patients (38). Every way is a process of
its own, so that no setting of one leaks into another; they take turns, round after round, and the medians are compared.
A turn is the mean of the epochs that fit into a second (at least one), after one that is not counted: in a training,
epochs follow each other, and the caches that another process has just filled would cost a short epoch more than a long.

(a) plain          the usual loop, as papers' repositories write it: a data loader that gives one patient at a time, a
                   gated attention head in CLAM's size (512, 256, dropout 0.25), Adam and a step for every patient
(b) same           that head in milkit (``clam`` without instance branch and with one attention), float32, a step for
                   every 16 patients, as is the default; otherwise the same mathematics (tests/test_mil_gradients.py)
(c) same, each     (b) with a step for every patient
(d) same bf16      (b) with products in bfloat16, where the processor computes in it
(e) default        the head that ``milkit train-mil`` trains unless told otherwise, float32
(f) default bf16   (e) with products in bfloat16

(b) to (f) are timed by the training's own functions. The floor is the time of the matrix products alone, by formula, at
the rate of the largest of them, measured in the same rounds. Then the whole command ``milkit train-mil --folds 5`` runs
on a store of that data, from start to the finished run folder.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from milkit.encoder import computes_in_bf16

WAYS = ("plain", "same", "same, each", "same bf16", "default", "default bf16")
LETTERS = "abcdef"
BARS = {"same_head_fp32": 2.0, "same_head_bf16": 3.0, "default_head": 12.0, "command_seconds": 60.0}
CLASSES = {"APL": 24, "NPM1": 36, "CBFB_MYH11": 37, "RUNX1_RUNX1T1": 32, "control": 60}
SAME, DEFAULT = (512, 256), (128, 128)
"""Widths of the projection and of the attention."""
TURN = 1.0
"""Seconds that a way is measured for, at least, before the next has its turn."""


def main() -> None:
    """Measure, print the tables, and write the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the ratios to this file.")
    parser.add_argument("--dims", type=int, nargs="+", default=[384, 1024])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--share", type=float, default=1.0, help="Of the patients, in a fold-epoch; for a quick look.")
    parser.add_argument("--no-command", action="store_true", help="Leave the whole command out.")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given.dims[0], given.share)
        return
    found = {dim: measure(dim, given) for dim in given.dims}
    for dim in [] if given.no_command else given.dims:
        found[dim]["command_seconds"], found[dim]["epochs"] = whole_command(dim)
    for dim, results in found.items():
        show(dim, results)
    first = found[given.dims[0]]
    if given.dims[0] == 384:
        bars(first)
    if given.json:
        ratios = {name: first.get(name) for name in BARS}
        by_dim = {str(dim): results for dim, results in found.items()}
        content = ratios | {"dims": by_dim, "rounds": given.rounds, "threads": torch.get_num_threads()}
        given.json.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")


def simulated(dim: int) -> tuple[list[Tensor], list[int]]:
    """Bags and classes: in each class, a tenth of the cells is shifted along directions of its own."""
    generator = np.random.default_rng(0)
    labels = generator.permutation([c for c, n in enumerate(CLASSES.values()) for _ in range(n)])
    directions = generator.normal(size=(len(CLASSES), dim)) / np.sqrt(dim)
    bags = []
    for label in labels:
        bag = generator.normal(size=(int(np.clip(generator.normal(430, 80), 99, 500)), dim))
        bag[: len(bag) // 10] += 4.0 * directions[label]
        bags.append(torch.from_numpy(bag.astype(np.float32)))
    return bags, labels.tolist()


def fold(labels: list[int], share: float) -> tuple[list[int], list[int]]:
    """Training and validation patients of the first fold, or a share of them."""
    import pandas as pd

    from milkit.folds import Folds

    names = [f"P{n:03d}" for n in range(len(labels))]
    table = pd.Series([str(label) for label in labels], index=pd.Index(names, name="patient_id"))
    split = next(Folds.stratified(table, 5, seed=0).splits())
    position = {name: n for n, name in enumerate(names)}
    train, validation = ([position[name] for name in part] for part in (split.train, split.validation))
    return train[: max(1, round(share * len(train)))], validation[: max(1, round(share * len(validation)))]


def work(way: str, dim: int, share: float) -> None:
    """A worker: get ready, say so, and answer each line on stdin with the seconds of a fold-epoch (``turn``)."""
    torch.manual_seed(0)
    bags, labels = simulated(dim)
    train, validation = fold(labels, share)
    make = plain_epoch if way == "plain" else our_epoch
    epoch = make(way, bags, labels, train, validation)
    epoch()
    cells = [sum(len(bags[i]) for i in part) for part in (train, validation)]
    print(json.dumps({"cells": cells, "patients": [len(train), len(validation)]}), flush=True)
    for _ in sys.stdin:
        print(json.dumps({"seconds": turn(epoch), **(ceilings(dim) if way == "same" else {})}), flush=True)


class GatedAttention(nn.Module):
    """CLAM's network of its small size, without the instance branch, as repositories write it: one bag, (N, dim)."""

    def __init__(self, dim: int, n_classes: int) -> None:
        super().__init__()
        hidden, attention = SAME
        self.features = nn.Sequential(nn.Linear(dim, hidden), nn.ReLU(), nn.Dropout(0.25))
        self.a = nn.Sequential(nn.Linear(hidden, attention), nn.Tanh(), nn.Dropout(0.25))
        self.b = nn.Sequential(nn.Linear(hidden, attention), nn.Sigmoid(), nn.Dropout(0.25))
        self.c = nn.Linear(attention, 1)
        self.classifier = nn.Linear(hidden, n_classes)

    def forward(self, bag: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, probabilities and the predicted class."""
        h = self.features(bag)
        scores = torch.transpose(self.c(self.a(h) * self.b(h)), 1, 0)
        logits = self.classifier(torch.mm(torch.softmax(scores, dim=1), h))
        return logits, torch.softmax(logits, dim=1), torch.topk(logits, 1, dim=1)[1]


def plain_epoch(
    _: str, bags: list[Tensor], labels: list[int], train: list[int], validation: list[int]
) -> Callable[[], None]:
    """(a)."""

    def loader(part: list[int], *, shuffle: bool) -> Any:
        examples = [(bags[i], labels[i]) for i in part]
        return torch.utils.data.DataLoader(examples, batch_size=1, shuffle=shuffle, collate_fn=collate)

    def collate(batch: list[tuple[Tensor, int]]) -> tuple[Tensor, Tensor]:
        return torch.cat([bag for bag, _ in batch]), torch.tensor([label for _, label in batch])

    model = GatedAttention(bags[0].shape[1], len(CLASSES))
    optimiser = torch.optim.Adam(model.parameters(), lr=1e-4, weight_decay=1e-5)
    loss_of = nn.CrossEntropyLoss()
    training, validating = loader(train, shuffle=True), loader(validation, shuffle=False)

    def epoch() -> None:
        model.train()
        total, right = 0.0, 0
        for bag, label in training:
            logits, _, guess = model(bag)
            loss = loss_of(logits, label)
            total += loss.item()
            right += int(guess.item() == label.item())
            loss.backward()
            optimiser.step()
            optimiser.zero_grad()
        model.eval()
        with torch.no_grad():
            for bag, label in validating:
                logits, _, guess = model(bag)
                total += loss_of(logits, label).item()
                right += int(guess.item() == label.item())

    return epoch


def our_epoch(
    way: str, bags: list[Tensor], labels: list[int], train: list[int], validation: list[int]
) -> Callable[[], None]:
    """(b) to (f), with what ``train_head`` does in an epoch."""
    from milkit.mil.batches import Bags
    from milkit.mil.heads import build_head
    from milkit.mil.pace import exact_products, pace_of
    from milkit.mil.train import Examples, Standardised, Training, class_weights, new_optimiser
    from milkit.settings import Component, TrainingSettings

    name, _, kind = way.partition(" ")
    hidden, attention = SAME
    clam = {"name": "clam", "hidden_dim": hidden, "attention_dim": attention, "class_wise": False, "n_instances": 0}
    head = Component.model_validate(clam if name.startswith("same") else "abmil")
    offsets = (0, *accumulate(map(len, bags)))
    held = Bags(tuple(f"P{n}" for n in range(len(bags))), torch.cat(bags), offsets, ())
    settings = TrainingSettings(precision="bf16" if kind == "bf16" else "fp32", batch_size=1 if kind == "each" else 16)
    examples, others = (Examples(part, [labels[i] for i in part]) for part in (train, validation))
    device = torch.device("cpu")
    mean, spread = held.moments(train)
    model = Standardised(build_head(head, held.dim, len(CLASSES)), mean.float(), (1 / spread).float())
    training = Training(model, held, class_weights(examples.labels, len(CLASSES)), pace_of(device, settings.precision))
    optimiser, order = new_optimiser(model, settings), np.random.default_rng(0)

    def epoch() -> None:
        with exact_products(device):
            training.epoch(examples, optimiser, order, settings.batch_size)
            training.loss(others)

    return epoch


def ceilings(dim: int) -> dict[str, float]:
    """GFLOP/s of the projection of a bag of usual size, in both number types."""
    x, w = torch.randn(430, dim), torch.randn(SAME[0], dim)
    found = {}
    for name, (a, b) in {"fp32": (x, w), "bf16": (x.bfloat16(), w.bfloat16())}.items():
        seconds = [timed(lambda a=a, b=b: nn.functional.linear(a, b)) for _ in range(40)]  # type: ignore[misc]
        found[name] = 2 * x.numel() * len(w) / statistics.median(seconds) / 1e9
    return found


def gflop(dim: int, head: str, cells: list[int]) -> float:
    """Products of a fold-epoch: each layer forward, and for its weights, and for its input but the first one's."""
    (hidden, attention), branches = (SAME, 2) if head == "same" else (DEFAULT, 1)
    first, second = dim * hidden, branches * hidden * attention
    train, validation = cells
    return 2 * (train * (2 * first + 3 * second) + validation * (first + second)) / 1e9


def measure(dim: int, given: argparse.Namespace) -> dict[str, Any]:
    """Let the ways take turns; medians of seconds, ratios and floors."""
    ways = [way for way in WAYS if "bf16" not in way or computes_in_bf16(torch.device("cpu"))]
    workers = {way: start(way, dim, given.share) for way in ways}
    ready = {way: answer(worker) for way, worker in workers.items()}
    rounds: dict[str, list[dict[str, float]]] = {way: [] for way in ways}
    for _ in range(given.rounds):
        for way, worker in workers.items():
            print("go", file=worker.stdin, flush=True)
            rounds[way].append(answer(worker))
    for worker in workers.values():
        worker.communicate("")
    seconds = {way: statistics.median(each["seconds"] for each in own) for way, own in rounds.items()}
    ratio = {way: seconds["plain"] / own for way, own in seconds.items()}
    ceiling = {kind: statistics.median(each[kind] for each in rounds["same"]) for kind in ("fp32", "bf16")}
    work_of = {head: gflop(dim, head, ready["plain"]["cells"]) for head in ("same", "default")}
    return {
        "same_head_fp32": ratio["same"],
        "same_head_bf16": ratio.get("same bf16"),
        "default_head": ratio["default"],
        "seconds": seconds,
        "ratio": ratio,
        "spread": {
            way: [min(e["seconds"] for e in own), max(e["seconds"] for e in own)] for way, own in rounds.items()
        },
        "ceiling_gflops": ceiling,
        "gflop": work_of,
        "floor_seconds": {h: {kind: work_of[h] / rate for kind, rate in ceiling.items()} for h in work_of},
        **ready["plain"],
    }


def start(way: str, dim: int, share: float) -> "subprocess.Popen[str]":
    """One way's process; it says when it is ready, and then answers each line."""
    command = [sys.executable, __file__, "--worker", way, "--dims", str(dim), "--share", str(share)]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def answer(worker: "subprocess.Popen[str]") -> Any:
    """A worker's next line."""
    return json.loads(worker.stdout.readline())  # type: ignore[union-attr]


def whole_command(dim: int) -> tuple[float, list[int]]:
    """Seconds of ``milkit train-mil --folds 5`` from call to end, and the epochs of each fold."""
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as name:
        folder = Path(name)
        write_store(folder / "bags.zarr", dim)
        command = [sys.executable, "-m", "milkit", "--workspace", str(folder / "work"), "train-mil"]
        command += ["--folds", "5", "--store", str(folder / "bags.zarr"), "--device", "cpu", "--name", "run"]
        seconds = timed(lambda: subprocess.run(command, check=True, capture_output=True))
        run = folder / "work" / "runs" / "run"
        if not (run / "metrics.json").is_file():
            msg = "the command wrote no metrics.json"
            raise RuntimeError(msg)
        heads = sorted((run / "heads").glob("*.json"))
        return seconds, [len(json.loads(path.read_text())["history"]) for path in heads]


def write_store(path: Path, dim: int) -> None:
    """The simulated patients as ``milkit extract`` leaves them."""
    import pandas as pd

    from milkit.bags import BagStore

    bags, labels = simulated(dim)
    names = [f"P{n:03d}" for n in range(len(bags))]
    rows = [
        (f"{name}/{n}", name, f"{name}/{n}.tif") for name, bag in zip(names, bags, strict=True) for n in range(len(bag))
    ]
    cells = pd.DataFrame(rows, columns=["cell_id", "patient_id", "path"])
    classes = list(CLASSES)
    patients = pd.DataFrame({"label": [classes[c] for c in labels]}, index=pd.Index(names, name="patient_id"))
    made_of = {"dtype": "float16", "cohort": "benchmark", "cohort_digest": "", "classes": classes, "encoder": "none"}
    made_of |= {"encoder_digest": "", "transform": {}, "batch_size": 8, "backend": "", "precision": "", "milkit": ""}
    store = BagStore.create(path, patients, cells, dim, made_of)
    for name, bag in zip(names, bags, strict=True):
        store.write(name, bag.numpy(), np.zeros((len(bag), 32), dtype=np.uint8), {})
    store.close()


def turn(epoch: Callable[[], None]) -> float:
    """Seconds of an epoch among others: the mean of as many as ``TURN`` asks for, after one that warms up."""
    epoch()
    seconds: list[float] = []
    while sum(seconds) < TURN:
        seconds.append(timed(epoch))
    return statistics.mean(seconds)


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def show(dim: int, results: dict[str, Any]) -> None:
    """Print the table of one feature length."""
    n_train, n_validation = results["patients"]
    print(f"\n{dim} features; {n_train} patients to train and {n_validation} to validate on; seconds a fold-epoch")
    print(f"{'':<4}{'way':<14}{'seconds':>9} {'spread':>15}{'x (a)':>8}{'floor':>9}{'x floor':>9}")
    for letter, way in zip(LETTERS, WAYS, strict=True):
        if way not in results["seconds"]:
            print(f"({letter}) {way:<14} left out: this processor only emulates bfloat16")
            continue
        head, kind = "default" if way.startswith("default") else "same", "bf16" if "bf16" in way else "fp32"
        own, floor = results["seconds"][way], results["floor_seconds"][head][kind]
        spread = "-".join(f"{seconds:.3f}" for seconds in results["spread"][way])
        print(
            f"({letter}) {way:<14}{own:>9.3f} {spread:>15}{results['ratio'][way]:>8.2f}{floor:>9.3f}{own / floor:>9.1f}"
        )
    rates, work_of = results["ceiling_gflops"], results["gflop"]
    print(
        f"products alone: {work_of['same']:.0f} and {work_of['default']:.0f} GFLOP, at {rates['fp32']:.0f} GFLOP/s in "
        f"fp32 and {rates['bf16']:.0f} in bf16"
    )
    if "command_seconds" in results:
        epochs = ", ".join(map(str, results["epochs"]))
        print(f"milkit train-mil --folds 5: {results['command_seconds']:.1f} s; epochs of the folds {epochs}")


def bars(results: dict[str, Any]) -> None:
    """Say which bars are met; they were set at 384 features, on a processor that computes in bfloat16."""
    if not computes_in_bf16(torch.device("cpu")):
        print("bars: not applicable, this processor has no AVX512-bf16")
        return
    for name, bar in BARS.items():
        value = results.get(name)
        if value is not None:
            met = value <= bar if name == "command_seconds" else value >= bar
            print(f"{name} {value:.2f}, bar {bar:g}: {'met' if met else 'MISSED'}")


if __name__ == "__main__":
    main()
