"""What a check of a cohort costs, and what it finds: ``python benchmarks/check.py [--json FILE] [--real FOLDER]``.

Cost: tiny drawn images (32 x 32, JPEG) are checked in a process of their own, a few and many of them.

seconds     the check, and writing its table and contact sheet
again       the same once more, when no file has changed
peak MB     the largest memory of the process, and of one of those that measure for it (Linux only)

Finds (``--real``, the folder with the published data, see tests marked ``real_data``): for each flag the share of
cells that have it, of real images as they are, and of copies of them that were altered on purpose. A copy is put among
the originals, so that what is judged beside the cohort is judged as it would be.
"""

import argparse
import io
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from PIL import Image, ImageFilter

Alteration = Callable[[bytes, random.Random], bytes]


def main() -> None:
    """Measure, print the tables, and write the figures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--json", type=Path, help="Write the figures to this file.")
    parser.add_argument("--sizes", type=int, nargs="+", default=[5_000, 50_000], help="Images of the cohorts.")
    parser.add_argument("--real", type=Path, help="The folder with the published data.")
    parser.add_argument("--altered", type=int, default=200, help="Images of a real cohort that are altered.")
    parser.add_argument("--one", type=Path, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.one:
        print(json.dumps(one(given.one, given.sizes[0])))
        return
    results: dict[str, Any] = {"cost": cost(given.sizes)}
    if given.real:
        results["finds"] = finds(given.real, given.altered)
    if given.json:
        given.json.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def cost(sizes: list[int]) -> list[dict[str, Any]]:
    """Draw the largest cohort once, and check its first images as often as there are sizes."""
    rows = []
    print(f"{'images':>8}{'seconds':>9}{'again':>7}{'peak MB':>9}{'worker MB':>11}")
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
        draw(Path(folder), max(sizes))
        for size in sizes:
            row = watched([sys.executable, __file__, "--one", folder, "--sizes", str(size)])
            rows.append(row)
            print(
                f"{row['images']:>8}{row['seconds']:>9.1f}{row['again']:>7.1f}{row['peak_mb']:>9.0f}"
                f"{row['worker_mb']:>11.0f}"
            )
    return rows


def draw(folder: Path, number: int) -> None:
    """Round blobs on a light ground."""
    generator = np.random.default_rng(0)
    down, across = np.mgrid[:32, :32]
    for n in range(number):
        image = generator.integers(180, 240, 3) + generator.normal(0, 6, (32, 32, 3))
        for _ in range(3):
            y, x, radius = generator.uniform((4, 4, 3), (28, 28, 9))
            inside = (down - y) ** 2 + (across - x) ** 2 < radius**2
            image[inside] = generator.integers(20, 160, 3) + generator.normal(0, 8, (int(inside.sum()), 3))
        path = folder / path_of(n)
        path.parent.mkdir(exist_ok=True)
        Image.fromarray(image.clip(0, 255).astype(np.uint8)).save(path, quality=85)
        os.utime(path, (1e9, 1e9))  # a file of this very moment would be read again by the second check


def path_of(n: int) -> str:
    """Where a drawn image lies: a thousand a folder."""
    return f"{n // 1000}/{n}.jpg"


def one(folder: Path, size: int) -> dict[str, Any]:
    """Check the first images of a folder twice."""
    from milkit.check.files import write_check
    from milkit.check.verb import check_cohort

    cohort = without_patients("tiny", folder, [(str(n), path_of(n), None) for n in range(size)])
    kept = folder / f"check-{size}" / "measures.npy"
    seconds = []
    for _ in range(2):
        started = time.perf_counter()
        check = check_cohort(cohort, kept=kept)
        write_check(check, kept.parent)
        n_files_read = check.n_files_read
        seconds.append(time.perf_counter() - started)
        del check  # a second table beside the first is no part of what a check needs
    return {"images": size, "seconds": seconds[0], "again": seconds[1], "files_read_again": n_files_read}


def watched(command: list[str]) -> dict[str, Any]:
    """Run a command that prints JSON, and add the peak memory of its process and of the largest of its children."""
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    own, children = 0.0, dict[int, float]()
    while process.poll() is None:
        own = max(own, peak_mb(process.pid))
        for tasks in Path(f"/proc/{process.pid}/task").glob("*/children"):
            try:
                pids = [int(pid) for pid in tasks.read_text().split()]
            except OSError:
                continue
            # The last word of each: until it runs its own program, a new process has the memory of its parent.
            children |= {pid: peak for pid in pids if (peak := peak_mb(pid))}
        time.sleep(0.05)
    output = process.stdout.read() if process.stdout else ""
    return {**json.loads(output), "peak_mb": own, "worker_mb": max(children.values(), default=0.0)}


def peak_mb(pid: int) -> float:
    """The largest resident memory of a process so far; 0 where the system does not say."""
    try:
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    except OSError:
        return 0.0
    return next((int(line.split()[1]) / 1024 for line in lines if line.startswith("VmHWM")), 0.0)


def without_patients(name: str, root: Path, cells: list[tuple[str, str, str | None]]) -> Any:
    """A cohort of cells (id, path, type) that belong to no patient."""
    from milkit.cohort import Cohort

    table = pd.DataFrame(cells, columns=["cell_id", "path", "cell_type"], dtype=object).assign(patient_id=None)
    patients = pd.DataFrame({"label": []}, index=pd.Index([], name="patient_id"), dtype=object)
    return Cohort(name, root, patients, table, ())


def finds(real: Path, number: int) -> dict[str, dict[str, dict[str, float]]]:
    """By data set, and by what was done to its images, the share of cells with each flag."""
    patterns = {
        "acevedo": "acevedo/*/*/[A-Z]*.jpg",
        "acevedo_original": "acevedo_original/*/*/[A-Z]*.jpg",
        "lymphocytosis": "lymphocytosis/*/*/*.jpg",
        "bmc_sample ok": "bmc_sample/ok/*.jpg",
        "bmc_sample corrupt": "bmc_sample/corrupt/*.jpg",
    }
    results = {}
    for name, pattern in patterns.items():
        paths = sorted(path.relative_to(real).as_posix() for path in real.glob(pattern))
        shares = {"as it is": flags(without_patients("real", real, [(path, path, None) for path in paths]))}
        if "bmc" not in name:
            shares |= {what: altered(real, paths, number, alter) for what, alter in alterations().items()}
        results[name] = shares
        print(f"\n{name}: {len(paths)} images")
        for what, found in shares.items():
            print(f"  {what:<28}" + ", ".join(f"{flag} {share:.2%}" for flag, share in found.items()))
    return results


def flags(cohort: Any, chosen: str = "") -> dict[str, float]:
    """The share of cells with each flag, of those whose id begins with ``chosen``."""
    from milkit.check.verb import check_cohort

    cells = check_cohort(cohort).cells
    cells = cells[cells["cell_id"].str.startswith(chosen)]
    counts = cells["flags"].str.split().explode().dropna().value_counts()
    return {str(flag): count / len(cells) for flag, count in counts.items()}


def altered(real: Path, paths: list[str], number: int, alter: Alteration) -> dict[str, float]:
    """Put altered copies of some images among (at most 2,000) others, and see what is said of those that changed."""
    source = random.Random(0)
    chosen = source.sample(paths, min(number, len(paths) // 10))  # few, so that the others say what is usual
    others = source.sample(paths, min(2_000, len(paths)))
    with tempfile.TemporaryDirectory(prefix="milkit-benchmark-") as folder:
        (Path(folder) / "real").symlink_to(real.resolve())
        cells: list[tuple[str, str, str | None]] = [(f"o/{path}", f"real/{path}", None) for path in {*others, *chosen}]
        for n, path in enumerate(chosen):
            content = (real / path).read_bytes()
            changed = alter(content, source)
            if visibly(content, changed):
                (Path(folder) / f"{n}.jpg").write_bytes(changed)
                cells.append((f"a/{n}", f"{n}.jpg", None))
        return flags(without_patients("real", Path(folder), cells), "a/")


def visibly(content: bytes, changed: bytes) -> bool:
    """Whether damage can be seen: it decodes, and differs by a grey level on average; other alterations always do."""
    try:
        before, after = (np.asarray(Image.open(io.BytesIO(data)).convert("L"), float) for data in (content, changed))
    except OSError:
        return False
    return before.shape != after.shape or len(content) != len(changed) or float(np.abs(before - after).mean()) >= 1


def alterations() -> dict[str, Alteration]:
    """What is done to an image, by what it is called."""

    def picture(change: Callable[[Image.Image], Image.Image], quality: int = 95) -> Alteration:
        def alter(content: bytes, _: random.Random) -> bytes:
            with Image.open(io.BytesIO(content)) as image:
                return encoded(change(image.convert("RGB")), quality)

        return alter

    def blur(share: float) -> Alteration:
        return picture(lambda image: image.filter(ImageFilter.GaussianBlur(share * image.width)))

    def smaller(scale: float) -> Alteration:
        return picture(lambda image: image.resize((round(image.width * scale), round(image.height * scale))))

    def cropped(share: float) -> Alteration:
        return picture(lambda i: i.crop((round(i.width * share), round(i.height * share), i.width, i.height)))

    return {
        "blur, 0.5 % of the side": blur(0.005),
        "blur, 1 % of the side": blur(0.01),
        "blur, 2 % of the side": blur(0.02),
        "contrast to 51 levels": picture(lambda image: image.point(lambda value: round(100 + value * 51 / 255))),
        "a tenth white": picture(whitened),
        "encoded anew, quality 60": picture(lambda image: image, 60),
        "encoded anew, quality 30": picture(lambda image: image, 30),
        "half the size": smaller(0.5),
        "0.8 of the size": smaller(0.8),
        "brighter by a tenth": picture(lambda image: image.point(lambda value: min(255, round(value * 1.1)))),
        "cropped by 2 %": cropped(0.02),
        "cropped by 5 %": cropped(0.05),
        "mirrored": picture(lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT)),
        "one bit flipped": lambda data, source: overwrite(data, source, 1, flip=True),
        "64 random bytes": lambda data, source: overwrite(data, source, 64),
        "512 bytes zeroed": lambda data, source: overwrite(data, source, 512, zero=True),
    }


def encoded(image: Image.Image, quality: int) -> bytes:
    """As JPEG."""
    content = io.BytesIO()
    image.save(content, "JPEG", quality=quality)
    return content.getvalue()


def whitened(image: Image.Image) -> Image.Image:
    """The upper tenth made white, as under an overexposed edge."""
    image.paste((255, 255, 255), (0, 0, image.width, image.height // 10))
    return image


def overwrite(content: bytes, source: random.Random, length: int, *, zero: bool = False, flip: bool = False) -> bytes:
    """Change some bytes somewhere behind the headers."""
    changed = bytearray(content)
    start = source.randrange(1_000, len(content) - length - 2)
    if flip:
        changed[start] ^= 1 << source.randrange(8)
    else:
        changed[start : start + length] = bytes(length) if zero else source.randbytes(length)
    return bytes(changed)


if __name__ == "__main__":
    main()
