"""The noun BagStore: features of every cell of a cohort under one encoder; ``store`` documents the files."""

from milkit.bags.seen import cohort_names, seen_in_pretraining
from milkit.bags.store import BLOCK, Bag, BagStore

__all__ = ["BLOCK", "Bag", "BagStore", "cohort_names", "seen_in_pretraining"]
