"""milkit-mini: the small encoder that comes with milkit, so that everything runs offline with learned features.

A vision transformer of 192 features, 6 blocks and 3 heads at 112 pixels, trained from scratch by `milkit pretrain`
with ``configs/encoders/milkit_mini.yaml``; ``milkit_mini.md`` beside its weights is the model card: on which images,
under which licences, with which results, and what it is not for. DinoBloom's published networks see far more.
"""

from pathlib import Path

from encoders.pretrained import encoder_of
from milkit.encoder import Encoder

WEIGHTS = Path(__file__).parent / "shipped" / "milkit_mini.safetensors"


def milkit_mini(weights: Path | None = None) -> Encoder:
    """The small encoder, 192 features; ``weights`` is another training of it, or None for the one that is shipped."""
    return encoder_of("milkit-mini", weights or WEIGHTS)
