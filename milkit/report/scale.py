"""Scale bars: a round length that fits below a picture."""

from typing import NamedTuple

_LENGTHS = (100.0, 50.0, 20.0, 10.0, 5.0, 2.0, 1.0, 0.5)
"""Micrometres, longest first."""


class ScaleBar(NamedTuple):
    """A bar of ``length`` µm, which is ``share`` of the picture's width in per cent."""

    length: float
    share: float

    @property
    def label(self) -> str:
        """``10 µm``."""
        return f"{self.length:g} µm"


def scale_bar(width: int, micrometres_per_pixel: float | None) -> ScaleBar | None:
    """The longest round one that is at most half as long as an image of this width in its own pixels is wide.

    None where the size of a pixel is unknown, or no length fits.
    """
    if not micrometres_per_pixel:
        return None
    field = width * micrometres_per_pixel
    length = next((length for length in _LENGTHS if length <= field / 2), None)
    return None if length is None else ScaleBar(length, 100 * length / field)
