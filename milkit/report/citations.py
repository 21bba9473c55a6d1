"""What a report asks its readers to cite: what the run used, and nothing else."""

from collections.abc import Collection, Mapping
from fnmatch import fnmatchcase
from typing import NamedTuple


class Citation(NamedTuple):
    """A work, and when to cite it: a name of this ``kind`` (head, encoder, cohort) that fits the ``pattern``."""

    kind: str
    pattern: str
    text: str


_DINOBLOOM = "DinoBloom encoders: Koch, Wagner, Kazeminia et al. 2024, MICCAI, arXiv 2404.05022"

CITATIONS = (
    Citation(
        "head",
        "abmil",
        "Attention-based multiple-instance learning: Ilse, Tomczak, Welling 2018, ICML, PMLR 80: 2127–2136",
    ),
    Citation("encoder", "dinobloom*", _DINOBLOOM),
    Citation("encoder", "timm-*dinobloom*", _DINOBLOOM),
    Citation(
        "cohort",
        "aml_hehr",
        "The AML images, whose licence (CC BY 4.0) requires the citation: Hehr, Sadafi, Matek et al. 2023, PLOS "
        "Digital Health 2(3): e0000187; collection doi 10.7937/6ppe-4020",
    ),
    Citation(
        "cohort",
        "lymphocytosis",
        "The lymphocytosis images: Sahasrabudhe, Sujobert, Zacharaki et al. 2021, IEEE Journal of Biomedical and "
        "Health Informatics 25(6): 2125–2136",
    ),
)
"""All works that are known; names are compared in lower case."""


def citations(used: Mapping[str, Collection[str]]) -> list[str]:
    """The works to cite.

    Args:
        used: Names that the run used, by kind.
    """
    return [work.text for work in CITATIONS if any(fnmatchcase(name.lower(), work.pattern) for name in used[work.kind])]
