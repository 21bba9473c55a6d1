"""Feature extraction against the usual ways, in one run: ``python benchmarks/extract.py [--json FILE]``.

Every way is a process of its own, so that no setting of one leaks into another; they take turns, round after round,
over the same image files and the same random ViT-S/14 weights, and the medians are compared.

(a) reference    the usual way: the hub's eager ViT (fused attention, every token through every block), float32,
                 batches of 32, no_grad, images decoded in the loop with Pillow
(b) timm         timm's own DINOv2 ViT with the same weights, otherwise as (a)
(c) milkit fp32  images decoded ahead by threads, the network in its form for features, batch size measured
(d) milkit auto  the same, in bfloat16 where the processor computes in it
(e) openvino     the same by OpenVINO, in bfloat16 where the processor computes in it

Then the whole command ``milkit extract`` runs from files to a committed store, on 500 and on 5,000 images, and its
rate is compared with that of (d) alone on images in memory. The ceilings are those of a matrix product of the network's
size, measured in the same run; a ViT-S needs 12.25 GFLOP an image. ``--device cuda --size l --images 4096`` does the
same on a GPU, which nobody has done yet.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

WAYS = ("reference", "timm", "milkit fp32", "milkit auto", "openvino")
LETTERS = "abcde"
BARS = {"ratio_fp32": 1.7, "ratio_auto": 2.7, "ratio_openvino": 4.0, "end_to_end_share": 0.9}


def main() -> None:
    """Measure, print the table, and write the ratios."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the ratios to this file.")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--images", type=int, default=96, help="Images a round and way.")
    parser.add_argument("--cohort-images", type=int, default=5000, help="Images of the whole command; 0 leaves it out.")
    parser.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
    parser.add_argument("--size", choices=("s", "b", "l"), default="s", help="Of the ViT.")
    parser.add_argument("--worker", choices=WAYS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work(given.worker, given)
        return
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
        given.folder = Path(folder)
        prepare(given.folder, max(given.images, given.cohort_images), given.size)
        results = measure(given)
        if given.cohort_images:
            results |= whole_command(given, results["own_rate"])
    show(results)
    if given.device == "cpu":
        bars(results)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def prepare(folder: Path, n_images: int, size: str) -> None:
    """Draw cells (144-pixel TIFFs in AML-Hehr's layout) and random weights whose features differ between images."""
    import torch
    from safetensors.torch import save_file

    from cohorts.synthetic import synthetic
    from encoders.vit import VIT_SHAPES, VisionTransformer

    per_class = -(-n_images // (5 * 80))
    synthetic(folder / "cohort", patients_per_class=max(per_class, 3), cells_per_patient=(80, 90))
    torch.manual_seed(0)
    tensors = VisionTransformer(VIT_SHAPES[size]).state_dict()
    for name, tensor in tensors.items():
        if tensor.ndim > 1:
            torch.nn.init.trunc_normal_(tensor, std=0.05)
        elif "norm" not in name and "gamma" not in name:
            torch.nn.init.normal_(tensor, std=0.02)
    save_file({f"backbone.{name}": tensor for name, tensor in tensors.items()}, folder / "weights.safetensors")


def measure(given: argparse.Namespace) -> dict[str, Any]:
    """Let the ways take turns; medians of images a second, ratios, and what else the workers say."""
    workers, ready = {}, {}
    for way in (way for way in WAYS if given.device == "cpu" or way != "openvino"):  # one after another: they measure
        workers[way] = start(way, given)
        ready[way] = json.loads(workers[way].stdout.readline())  # type: ignore[union-attr]
    workers = {way: worker for way, worker in workers.items() if "missing" not in ready[way]}
    rates: dict[str, list[dict[str, float]]] = {way: [] for way in workers}
    for _ in range(given.rounds):
        for way, worker in workers.items():
            print("go", file=worker.stdin, flush=True)
            rates[way].append(json.loads(worker.stdout.readline()))  # type: ignore[union-attr]
    for worker in workers.values():
        worker.communicate("")
    median = {way: statistics.median(r["files"] for r in rounds_) for way, rounds_ in rates.items()}
    auto, fast = rates["milkit auto"], ready["milkit auto"]
    of = {way: median.get(way, 0.0) / median["reference"] for way in WAYS}
    return {
        "ratio_fp32": of["milkit fp32"],
        "ratio_auto": of["milkit auto"],
        "ratio_openvino": of["openvino"] or None,
        "ratio_timm": of["timm"],
        "cosine_auto": fast["cosine"],
        "largest_difference_fp32": ready["milkit fp32"]["difference"],
        "own_rate": statistics.median(r["squares"] for r in auto),
        "images_per_second": median,
        "spread": {way: [min(r["files"] for r in s), max(r["files"] for r in s)] for way, s in rates.items()},
        "ceiling_gflops": {key: statistics.median(r[key] for r in auto) for key in ("fp32", "bf16")},
        "workers": ready,
        "rounds": given.rounds,
        "images": given.images,
        "gflop": gflop(given.size),
    }


def gflop(size: str) -> float:
    """Of one image: 24 N D² + 4 N² D a block for N tokens of D features, and the projection of the patches."""
    from encoders.vit import VIT_SHAPES

    n, dim, depth = 257, VIT_SHAPES[size].dim, VIT_SHAPES[size].depth
    return (depth * (24 * n * dim**2 + 4 * n**2 * dim) + 2 * 256 * 588 * dim) / 1e9


def start(way: str, given: argparse.Namespace) -> "subprocess.Popen[str]":
    """One way's process; it says when it is ready, and then answers each line with its rates."""
    command = [sys.executable, __file__, "--worker", way, "--folder", str(given.folder)]
    command += ["--images", str(given.images), "--device", given.device, "--size", given.size]
    return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def whole_command(given: argparse.Namespace, own_rate: float) -> dict[str, Any]:
    """``milkit extract`` as a user calls it: its rate as a share of the network's, and its peak memory in MiB."""
    from cohorts.synthetic import synthetic

    folder = given.folder
    synthetic(folder / "small", patients_per_class=3, cells_per_patient=(33, 34))
    found: dict[str, Any] = {}
    for name in ("small", "cohort"):
        command = [sys.executable, "-m", "milkit", "--workspace", str(folder / f"work-{name}"), "extract"]
        command += ["--cohort", "aml_hehr", "--root", str(folder / name), "--device", given.device]
        command += ["--encoder", f"dinobloom-{given.size}", "--weights", str(folder / "weights.safetensors")]
        started = time.perf_counter()
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        output = process.stdout.read() if process.stdout else ""
        _, status, usage = os.wait4(process.pid, 0)
        seconds = time.perf_counter() - started
        if status:
            raise RuntimeError(output)
        n_cells = int(output.rpartition(".zarr: ")[2].split()[0])
        found[name] = {"images": n_cells, "seconds": seconds, "peak_mib": usage.ru_maxrss / 1024}
    rate = found["cohort"]["images"] / found["cohort"]["seconds"]
    return {"end_to_end_share": rate / own_rate, "end_to_end": found}


def work(way: str, given: argparse.Namespace) -> None:
    """A worker: get ready, say so, and answer each line on stdin with images a second."""
    paths = sorted((given.folder / "cohort" / "data").rglob("*.tif"))
    paths = paths[:: len(paths) // given.images][: given.images]
    try:
        encode, ready = (usual_way if way in ("reference", "timm") else our_way)(way, given, paths)
    except ImportError as error:
        print(json.dumps({"missing": str(error)}), flush=True)
        return
    print(json.dumps(ready), flush=True)
    for _ in sys.stdin:
        print(json.dumps(encode()), flush=True)


Encode = Callable[[], dict[str, float]]


def usual_way(way: str, given: argparse.Namespace, paths: list[Path]) -> tuple[Encode, dict[str, Any]]:
    """(a) and (b)."""
    import numpy as np
    import torch
    from PIL import Image

    network = (timm_network if way == "timm" else plain_network)(given).to(given.device)
    mean, std = torch.tensor((0.485, 0.456, 0.406)), torch.tensor((0.229, 0.224, 0.225))

    def load(path: Path) -> torch.Tensor:
        image = Image.open(path).convert("RGB").resize((224, 224), Image.Resampling.BILINEAR)
        return ((torch.from_numpy(np.array(image)).float() / 255 - mean) / std).permute(2, 0, 1)

    def features(some: list[Path]) -> torch.Tensor:
        batches = [some[start : start + 32] for start in range(0, len(some), 32)]
        with torch.no_grad():
            loaded = (torch.stack([load(path) for path in batch]) for batch in batches)
            return torch.cat([network(images.to(given.device)) for images in loaded]).cpu()

    np.save(given.folder / f"{way}.npy", features(paths[:32]).numpy())

    def encode() -> dict[str, float]:
        started = time.perf_counter()
        features(paths)
        return {"files": len(paths) / (time.perf_counter() - started)}

    return encode, {"batch": 32}


def encoder_of(given: argparse.Namespace) -> Any:
    """The encoder with the benchmark's weights."""
    from milkit.encoder import load_encoder
    from milkit.settings import Component

    weights = given.folder / "weights.safetensors"
    return load_encoder(Component.model_validate({"name": f"dinobloom-{given.size}", "weights": weights}))


def plain_network(given: argparse.Namespace) -> Any:
    """The eager network, as the hub has it."""
    return encoder_of(given).model


def timm_network(given: argparse.Namespace) -> Any:
    """Build timm's network with the same weights; its names are DINOv2's, and it has no mask token."""
    import timm
    from safetensors.torch import load_file

    name = {"s": "small", "b": "base", "l": "large"}[given.size]
    network = timm.create_model(f"vit_{name}_patch14_dinov2", img_size=224, num_classes=0, pretrained=False)
    tensors = load_file(given.folder / "weights.safetensors")
    tensors = {name.removeprefix("backbone."): tensor for name, tensor in tensors.items() if "mask_token" not in name}
    network.load_state_dict(tensors, strict=True)
    return network.eval()


def our_way(way: str, given: argparse.Namespace, paths: list[Path]) -> tuple[Encode, dict[str, Any]]:
    """(c), (d) and (e), with the modules that the command uses."""
    import numpy as np
    import torch

    from milkit.calibration import compare, settle
    from milkit.decode import decode, decode_one
    from milkit.execution import running
    from milkit.images import Place
    from milkit.settings import CohortRecipe, ExtractSettings

    if way == "openvino":
        import openvino  # noqa: F401
    encoder, folder = encoder_of(given), given.folder
    settings = ExtractSettings(
        cohort=CohortRecipe(name="synthetic"),
        precision="fp32" if way == "milkit fp32" else "auto",
        backend="openvino" if way == "openvino" else "torch",
        device=given.device,
    )
    places = [Place(path.parent, path.name) for path in paths]
    decoded = [decode_one(place, encoder.transform).square for place in places]
    squares = torch.from_numpy(np.stack([square for square in decoded if square is not None]))
    execution = settle(encoder, settings, squares[:16], [len(paths)])
    manager = running(encoder, execution)
    run, size = manager.__enter__(), execution.batch_size

    def in_batches(images: torch.Tensor) -> torch.Tensor:
        n = len(images) // size * size
        return torch.cat([run(images[start : start + size]) for start in range(0, n, size)]).cpu()

    def from_files() -> None:
        waiting, features = [], []
        for cell in decode(places, encoder.transform, ahead=4 * size):
            waiting.append(torch.from_numpy(cell.square))
            if len(waiting) == size:
                features.append(run(torch.stack(waiting)))
                waiting = []
        torch.cat(features).cpu()

    def encode() -> dict[str, float]:
        n = len(paths) // size * size
        seconds = timed(lambda: in_batches(squares)), timed(from_files)
        return {"squares": n / seconds[0], "files": n / seconds[1], **ceilings(given)}

    expected = torch.from_numpy(np.load(folder / "reference.npy"))
    difference, cosine = compare(in_batches(squares)[:32], expected[: len(squares)])
    stages = stage_times(paths[:64], encoder, folder / way.replace(" ", "-"))
    ready = {"difference": difference, "cosine": cosine, "batch": size, "precision": execution.precision, **stages}
    return encode, ready


def ceilings(given: argparse.Namespace) -> dict[str, float]:
    """GFLOP/s of the widest product of a block (8 images; 256 on a GPU), in both number types."""
    import torch

    from encoders.vit import VIT_SHAPES

    dim, n_images = VIT_SHAPES[given.size].dim, 8 if given.device == "cpu" else 256
    x, w = (torch.randn(n, dim, device=given.device) for n in (n_images * 257, 4 * dim))
    found = {}
    for name, (a, b) in {"fp32": (x, w), "bf16": (x.bfloat16(), w.bfloat16())}.items():

        def product(a: torch.Tensor = a, b: torch.Tensor = b) -> None:
            torch.nn.functional.linear(a, b)
            if given.device == "cuda":
                torch.cuda.synchronize()

        times = [timed(product) for _ in range(12)]
        found[name] = 2 * x.numel() * len(w) / statistics.median(times) / 1e9
    return found


def stage_times(paths: list[Path], encoder: Any, folder: Path) -> dict[str, float]:
    """Milliseconds an image of what is not the network, each on one thread."""
    import numpy as np

    from milkit.bags import BagStore
    from milkit.images import read_image

    images = [read_image(path) for path in paths]
    decoding = timed(lambda: [read_image(path) for path in paths])
    resizing = timed(lambda: [encoder.transform.square(image) for image in images])
    n = len(paths)
    import pandas as pd

    patients = pd.DataFrame({"label": ["A"]}, index=pd.Index(["P"], name="patient_id"))
    cells = pd.DataFrame({"cell_id": [f"c{i}" for i in range(n)], "patient_id": "P", "path": [p.name for p in paths]})
    made_of = {"dtype": "float16", "cohort": "benchmark", "cohort_digest": "", "classes": ["A"], "encoder": "s"}
    made_of |= {"encoder_digest": "", "transform": {}, "batch_size": 8, "backend": "", "precision": "", "milkit": ""}
    store = BagStore.create(folder.with_suffix(".zarr"), patients, cells, encoder.dim, made_of)
    features = np.zeros((n, encoder.dim), dtype=np.float32)
    writing = timed(lambda: store.write("P", features, np.zeros((n, 32), dtype=np.uint8), {}))
    store.close()
    return {"decode_ms": 1e3 * decoding / n, "resize_ms": 1e3 * resizing / n, "write_ms": 1e3 * writing / n}


def bars(results: dict[str, Any]) -> None:
    """Say which bars are met; they were set on a processor whose AVX-512 units are as wide as its registers."""
    import torch

    if not bool(getattr(torch.cpu, "_is_avx512_bf16_supported", bool)()):
        print("bars: not applicable, this processor has no AVX512-bf16")
        return
    for name, bar in BARS.items():
        if results.get(name) is not None:
            print(f"{name} {results[name]:.2f}, bar {bar}: {'met' if results[name] >= bar else 'MISSED'}")


def timed(call: Callable[[], Any]) -> float:
    """Seconds that a call takes."""
    started = time.perf_counter()
    call()
    return time.perf_counter() - started


def show(results: dict[str, Any]) -> None:
    """Print the tables."""
    ceiling, ready = results["ceiling_gflops"], results["workers"]
    print(f"medians of {results['rounds']} rounds of {results['images']} images, from files to features")
    print(f"{'':<4}{'way':<14}{'images/s':>9} {'spread':>14}{'x (a)':>7}{'% ceiling':>11}  batch")
    for letter, way in zip(LETTERS, WAYS, strict=True):
        if way not in results["images_per_second"]:
            print(f"({letter}) {way:<14} not installed ({ready[way]['missing']})")
            continue
        rate, (low, high) = results["images_per_second"][way], results["spread"][way]
        bf16 = ready[way].get("precision") == "bf16"
        share = 100 * rate * results["gflop"] / ceiling["bf16" if bf16 else "fp32"]
        ratio = rate / results["images_per_second"]["reference"]
        kind = "bf16" if bf16 else "fp32"
        spread = f"{low:.1f}-{high:.1f}"
        print(f"({letter}) {way:<14}{rate:>9.1f} {spread:>14}{ratio:>7.2f}{share:>6.0f} {kind}  {ready[way]['batch']}")
    limits = {kind: ceiling[kind] / results["gflop"] / results["images_per_second"]["reference"] for kind in ceiling}
    print(
        f"ceilings: {ceiling['fp32']:.0f} GFLOP/s fp32, {ceiling['bf16']:.0f} bf16; {results['gflop']:.2f} GFLOP an "
        f"image at the ceiling would be {limits['fp32']:.2f} x (a) in fp32 and {limits['bf16']:.2f} x (a) in bf16"
    )
    print(f"features of (c) to (a): largest difference {results['largest_difference_fp32']:.1e}")
    print(f"features of (d) to (a): least cosine {results['cosine_auto']:.6f}")
    auto = ready["milkit auto"]
    stages = "  ".join(f"{name} {auto[f'{name}_ms']:.2f}" for name in ("decode", "resize", "write"))
    print(f"ms an image, one thread: {stages}  encode (all cores) {1e3 / results['own_rate']:.2f}")
    if "end_to_end" in results:
        for run in results["end_to_end"].values():
            rate = run["images"] / run["seconds"]
            share, peak = 100 * rate / results["own_rate"], run["peak_mib"]
            print(
                f"whole command, {run['images']} images: {run['seconds']:.1f} s, {rate:.1f} images/s, "
                f"{share:.0f} % of the network's own rate, peak memory {peak:.0f} MiB"
            )


if __name__ == "__main__":
    main()
