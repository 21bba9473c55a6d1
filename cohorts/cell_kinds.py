"""The kinds of white cells that the synthetic cohort draws, as a haematologist would describe them to an illustrator.

Sizes in µm follow the usual descriptions of a Pappenheim-stained blood smear. A dye is what the stain does to light:
its optical density (natural logarithm) in red, green and blue at full depth, and how much of it is eosin (acid dye)
rather than azure; the two vary from smear to smear.
"""

from dataclasses import dataclass
from typing import NamedTuple


class Dye(NamedTuple):
    """Optical density in red, green and blue, and the share of eosin."""

    red: float
    green: float
    blue: float
    eosin: float = 0.0


HAEMOGLOBIN = Dye(0.26, 0.42, 0.33, 1.0)
CHROMATIN = Dye(1.25, 1.72, 0.66)
PARACHROMATIN = Dye(0.66, 1.15, 0.36)
NUCLEOLUS = Dye(0.62, 0.86, 0.22)
BASOPHILIC = Dye(0.58, 0.52, 0.15)
PALE_BLUE = Dye(0.38, 0.30, 0.06)
GREY_BLUE = Dye(0.44, 0.42, 0.16, 0.2)
PINK = Dye(0.11, 0.25, 0.13, 0.7)
PINK_BLUE = Dye(0.27, 0.33, 0.12, 0.4)
AZUROPHILIC = Dye(0.62, 1.35, 0.50, 0.3)
NEUTROPHILIC = Dye(0.24, 0.50, 0.20, 0.5)
ORANGE = Dye(0.30, 0.86, 0.80, 1.0)
SALMON = Dye(0.16, 0.80, 0.64, 1.0)
DARK_PURPLE = Dye(1.50, 1.95, 0.95)
AUER = Dye(0.40, 1.65, 0.66, 0.4)


@dataclass(frozen=True, slots=True)
class Granules:
    """Granules of one sort: fewest and most, their radius, and whether they lie over the nucleus too."""

    dye: Dye
    number: tuple[int, int]
    radius: float
    depth: float = 1.0
    over_nucleus: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Kind:
    """How cells of one kind look.

    Attributes:
        diameter: Mean and spread of the cell's diameter, µm.
        nucleus: The nucleus's shape, a key of ``cell_shapes.NUCLEI``.
        ratio: Mean and spread of the nucleus's diameter over the cell's.
        clumping: Chromatin from fine and open (0) to coarse and dense (1).
        cytoplasm: Its dye.
        nucleoli: Fewest and most.
        rim: How much deeper the cytoplasm stains along its border.
        unevenness: How far the cell's outline swings, as a share of its radius.
        eccentric: How far the nucleus lies from the centre, from 0 to 1 (touching the border).
        hof: Depth of the pale zone beside the nucleus.
        vacuoles: Fewest and most.
        granules: The sorts of granules.
        rods: Fewest and most Auer rods.
        rod_length: Shortest and longest rod, µm.
        bundled: Whether the rods lie together like a faggot of sticks.
        cup: Whether a deep pale invagination indents the nucleus.
    """

    diameter: tuple[float, float]
    nucleus: str
    ratio: tuple[float, float]
    clumping: float
    cytoplasm: Dye
    nucleoli: tuple[int, int] = (0, 0)
    rim: float = 0.0
    unevenness: float = 0.025
    eccentric: float = 0.4
    hof: float = 0.0
    vacuoles: tuple[int, int] = (0, 0)
    granules: tuple[Granules, ...] = ()
    rods: tuple[int, int] = (0, 0)
    rod_length: tuple[float, float] = (0.0, 0.0)
    bundled: bool = False
    cup: bool = False


_FINE = Granules(NEUTROPHILIC, (150, 260), 0.16, 0.55)
_COARSE = Granules(DARK_PURPLE, (18, 50), 0.5, 0.9, over_nucleus=True)

KINDS: dict[str, Kind] = {
    "myeloblast": Kind(
        diameter=(14.2, 1.3), nucleus="round", ratio=(0.84, 0.03), clumping=0.08, cytoplasm=BASOPHILIC,
        nucleoli=(1, 3), rim=0.25, unevenness=0.04, eccentric=0.55,
    ),
    "promyelocyte": Kind(
        diameter=(17.0, 1.2), nucleus="round", ratio=(0.66, 0.03), clumping=0.22, cytoplasm=PALE_BLUE,
        nucleoli=(0, 2), rim=0.2, unevenness=0.035, eccentric=0.75, hof=0.35,
        granules=(Granules(AZUROPHILIC, (70, 160), 0.2, 0.85, over_nucleus=True),),
    ),
    "myelocyte": Kind(
        diameter=(14.8, 1.1), nucleus="round", ratio=(0.60, 0.04), clumping=0.5, cytoplasm=PINK_BLUE,
        eccentric=0.75, granules=(_FINE, Granules(AZUROPHILIC, (0, 14), 0.18, 0.6)),
    ),
    "metamyelocyte": Kind(
        diameter=(13.8, 1.0), nucleus="kidney", ratio=(0.62, 0.03), clumping=0.62, cytoplasm=PINK,
        eccentric=0.45, granules=(_FINE,),
    ),
    "neutrophil_band": Kind(
        diameter=(12.9, 0.8), nucleus="band", ratio=(0.72, 0.04), clumping=0.75, cytoplasm=PINK,
        eccentric=0.2, granules=(_FINE,),
    ),
    "neutrophil_segmented": Kind(
        diameter=(12.7, 0.8), nucleus="segmented", ratio=(0.72, 0.04), clumping=0.85, cytoplasm=PINK,
        eccentric=0.15, granules=(_FINE,),
    ),
    "eosinophil": Kind(
        diameter=(13.3, 0.8), nucleus="bilobed", ratio=(0.66, 0.04), clumping=0.75, cytoplasm=PINK,
        eccentric=0.5, granules=(Granules(ORANGE, (260, 340), 0.38, 0.95),),
    ),
    "basophil": Kind(
        diameter=(11.6, 0.8), nucleus="lumpy", ratio=(0.74, 0.04), clumping=0.25, cytoplasm=PINK_BLUE,
        eccentric=0.2, granules=(Granules(DARK_PURPLE, (60, 120), 0.38, 0.95, over_nucleus=True),),
    ),
    "monocyte": Kind(
        diameter=(16.4, 1.3), nucleus="folded", ratio=(0.70, 0.04), clumping=0.36, cytoplasm=GREY_BLUE,
        unevenness=0.06, eccentric=0.4, vacuoles=(0, 7), granules=(Granules(AZUROPHILIC, (30, 110), 0.12, 0.35),),
    ),
    "lymphocyte_typical": Kind(
        diameter=(9.7, 0.8), nucleus="round", ratio=(0.86, 0.03), clumping=0.9, cytoplasm=PALE_BLUE,
        rim=0.2, unevenness=0.035, eccentric=0.7,
    ),
    "lymphocyte_reactive": Kind(
        diameter=(13.8, 1.2), nucleus="round", ratio=(0.68, 0.04), clumping=0.6, cytoplasm=PALE_BLUE,
        rim=0.6, unevenness=0.08, eccentric=0.6,
    ),
    "smudge": Kind(
        diameter=(12.5, 1.5), nucleus="smudged", ratio=(0.95, 0.08), clumping=0.15, cytoplasm=PINK_BLUE, eccentric=0.2,
    ),
    "blast_auer_rods": Kind(
        diameter=(14.9, 1.3), nucleus="round", ratio=(0.77, 0.03), clumping=0.1, cytoplasm=BASOPHILIC,
        nucleoli=(1, 3), rim=0.2, unevenness=0.04, eccentric=0.85,
        granules=(Granules(AZUROPHILIC, (0, 25), 0.17, 0.6),), rods=(1, 3), rod_length=(2.4, 4.8),
    ),
    "faggot_cell": Kind(
        diameter=(16.8, 1.2), nucleus="folded", ratio=(0.66, 0.03), clumping=0.2, cytoplasm=PALE_BLUE,
        nucleoli=(0, 1), rim=0.2, unevenness=0.04, eccentric=0.8,
        granules=(Granules(AZUROPHILIC, (30, 90), 0.19, 0.7, over_nucleus=True),),
        rods=(9, 20), rod_length=(2.0, 4.2), bundled=True,
    ),
    "cup_like_blast": Kind(
        diameter=(14.2, 1.3), nucleus="round", ratio=(0.84, 0.03), clumping=0.08, cytoplasm=BASOPHILIC,
        nucleoli=(0, 2), rim=0.25, unevenness=0.04, eccentric=0.55, cup=True,
    ),
    "eosinophil_abnormal": Kind(
        diameter=(15.6, 1.2), nucleus="folded", ratio=(0.64, 0.04), clumping=0.36, cytoplasm=GREY_BLUE,
        unevenness=0.045, eccentric=0.7,
        granules=(Granules(ORANGE, (90, 190), 0.38, 0.85), _COARSE),
    ),
    "blast_hof_salmon_granules": Kind(
        diameter=(16.6, 1.3), nucleus="notched", ratio=(0.72, 0.03), clumping=0.12, cytoplasm=BASOPHILIC,
        nucleoli=(1, 2), rim=0.35, unevenness=0.04, eccentric=0.85, hof=0.6,
        granules=(Granules(SALMON, (3, 7), 0.62, 1.0), Granules(AZUROPHILIC, (0, 20), 0.16, 0.5)),
    ),
}  # fmt: skip
"""All kinds by name: those of a differential count, then the planted ones."""

PLANTED: dict[str, tuple[str, ...]] = {
    "CBFB_MYH11": ("eosinophil_abnormal",),
    "NPM1": ("cup_like_blast",),
    "PML_RARA": ("blast_auer_rods", "faggot_cell"),
    "RUNX1_RUNX1T1": ("blast_hof_salmon_granules",),
}
"""The kinds that only patients of one class have; no other patient, and no control, has a single such cell."""

KIND_OF = {
    "pb_myeloblast": "myeloblast",
    "pb_promyelocyte": "promyelocyte",
    "pb_myelocyte": "myelocyte",
    "pb_metamyelocyte": "metamyelocyte",
    "pb_neutrophil_band": "neutrophil_band",
    "pb_neutrophil_segmented": "neutrophil_segmented",
    "pb_eosinophil": "eosinophil",
    "pb_basophil": "basophil",
    "pb_monocyte": "monocyte",
    "pb_lymph_typ": "lymphocyte_typical",
    "pb_lymph_atyp_react": "lymphocyte_reactive",
    "pb_lymph_atyp_neopl": "lymphocyte_reactive",
    "pb_other": "smudge",
}
"""The kind that is drawn for each column of the differential, in the order of the published table."""
