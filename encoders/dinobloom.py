"""DinoBloom: DINOv2 vision transformers trained further on single blood cells (Koch et al., arXiv:2404.05022).

The weights are published as ``DinoBloom-{S,B,L,G}.pth`` (Zenodo record 10908163: ``{"teacher": …}``, names that begin
with ``backbone.``, the projection heads of the training possibly beside them) and as ``pytorch_model_{s,b,l,g}.bin``
(MarrLab/DinoBloom on Hugging Face: a flat state dict). Both give the same features and the same digest here.

No published file could be had where this was written: what is tested are files in the published layouts, and the
network against its formulas. The digest of ``DinoBloom-S.pth`` is the one that KatherLab/STAMP pins; of the other
files none is known.
"""

from pathlib import Path

from encoders.vit_weights import Family, vit_encoder
from encoders.weights import read_weights
from milkit.downloads import hub_file
from milkit.encoder import Encoder

SEEN = (
    "aml_hehr",
    "bmc",
    "aml_matek",
    "raabin",
    "mll23",
    "nuclick",
    "warty_pig",
    "lisc",
    "chula",
    "sslseg",
    "bccd",
    "aslan",
)
"""The data sets of the pre-training; of ``aml_hehr`` and ``bmc`` 80 % of the images, of the others all."""

_REPOSITORY = "MarrLab/DinoBloom"
_FAMILY = Family(
    "DinoBloom",
    positions=257,
    published=f"Zenodo record 10908163 or {_REPOSITORY} on Hugging Face",
    seen=SEEN,
)
_SHA256 = {"DinoBloom-S.pth": "c2f7990b003e89bcece80e379fb8fe0ba2ec392ce19b286e8a294abd99568e44"}


def dinobloom_s(weights: Path | None = None) -> Encoder:
    """DinoBloom-S, 384 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinobloom("s", weights)


def dinobloom_b(weights: Path | None = None) -> Encoder:
    """DinoBloom-B, 768 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinobloom("b", weights)


def dinobloom_l(weights: Path | None = None) -> Encoder:
    """DinoBloom-L, 1024 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinobloom("l", weights)


def dinobloom_g(weights: Path | None = None) -> Encoder:
    """DinoBloom-G, 1536 features; ``weights`` is a published file, or None to take it from Hugging Face, once."""
    return _dinobloom("g", weights)


def _dinobloom(size: str, path: Path | None) -> Encoder:
    held = read_weights(path or _from_the_hub(size))
    if held.file in _SHA256:
        held.require_sha256(_SHA256[held.file])
    return vit_encoder(_FAMILY, size, held)


def _from_the_hub(size: str) -> Path:
    zenodo = f"DinoBloom-{size.upper()}.pth from Zenodo record 10908163"
    advice = f"download it there, or {zenodo}, and pass it with --weights FILE"
    return hub_file(_REPOSITORY, f"pytorch_model_{size}.bin", advice=advice)
