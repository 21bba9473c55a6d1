"""The key of a blinded review: which cell each code stands for. It stays with the run; the page knows nothing of it.

``<run>/review/<id>.key.json``, readable by its owner only (mode 0600), holds

* ``format`` (``milkit-review-key``) and ``version`` (1), ``review`` (the id), ``created``, ``seed``, ``readers`` (the
  names that were allowed; empty where readers type their own);
* ``taxonomy``: its name and the parent of every node, so that labels keep their meaning when the file changes;
* ``items``, in the order of the page: code, patient_id, cell_id, showing (1, or 2 for a cell that is shown again),
  group (top, random, bottom), stands_for (how many of the patient's cells this one was drawn for), class, rank,
  percentile.
"""

import json
import os
from dataclasses import dataclass
from pathlib import Path

import pandas as pd

from milkit.errors import ReviewError
from milkit.runs import read_json, whole_file
from milkit.taxonomy import Taxonomy

FORMAT, VERSION = "milkit-review-key", 1
UNCLEAR = "unclear"
"""The label of a cell that a reader could not tell; no node of a taxonomy."""


@dataclass(frozen=True, slots=True)
class Key:
    """What unblinds a review.

    Attributes:
        review: The id: it names the page and stands in what readers send back.
        created: Time, UTC.
        seed: Of the choice and the order.
        readers: The names that readers choose from; empty where they type their own.
        taxonomy: Whose nodes are the labels.
        items: One row a cell on the page, see the module's docstring.
    """

    review: str
    created: str
    seed: int
    readers: tuple[str, ...]
    taxonomy: Taxonomy
    items: pd.DataFrame

    def save(self, run: Path) -> Path:
        """Write the key into the run folder, for its owner's eyes only; return its path."""
        path = key_path(run, self.review)
        values = {
            "format": FORMAT,
            "version": VERSION,
            "review": self.review,
            "created": self.created,
            "seed": self.seed,
            "readers": list(self.readers),
            "taxonomy": {"name": self.taxonomy.name, "parents": dict(self.taxonomy.parents)},
            "items": self.items.to_dict("records"),
        }
        content = json.dumps(values, indent=1, ensure_ascii=False, allow_nan=False).encode()
        with whole_file(path) as partial:  # never readable by others, not even for the moment before a chmod
            descriptor = os.open(partial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            with os.fdopen(descriptor, "wb") as file:
                file.write(content)
        return path

    @classmethod
    def load(cls, run: Path, review: str) -> "Key":
        """Read the key of a review of this run; a damaged or newer one is a ``ReviewError``."""
        path = key_path(run, review)
        values = read_json(path)
        if values.get("format") != FORMAT or values.get("version") != VERSION:
            msg = (
                f"{path} is {values.get('format', 'nothing known')} {values.get('version', '')}, expected {FORMAT} "
                f"{VERSION}; read it with the milkit that wrote it, or restore the file."
            )
            raise ReviewError(msg)
        tree = values["taxonomy"]
        return cls(
            review=values["review"],
            created=values["created"],
            seed=values["seed"],
            readers=tuple(values["readers"]),
            taxonomy=Taxonomy(tree["name"], tree["parents"]),
            items=pd.DataFrame(values["items"]),
        )


def key_path(run: Path, review: str) -> Path:
    """Where the key of a review of this run lies."""
    return run / "review" / f"{review}.key.json"


def find_run(review: str, runs: list[Path]) -> Path:
    """The one of these runs that holds the key of a review; a ``ReviewError`` where none does."""
    for run in runs:
        if key_path(run, review).is_file():
            return run
    where = str(runs[0]) if len(runs) == 1 else f"any of the workspace's {len(runs)} runs"
    msg = f"The key of the review {review} is not in {where}; name the run that it was made from with --run."
    raise ReviewError(msg)
