"""The noun BagStore: features of every cell of a cohort under one encoder; ``store`` documents the files."""

from milkit.bags.store import BLOCK, Bag, BagStore

__all__ = ["BLOCK", "Bag", "BagStore"]
