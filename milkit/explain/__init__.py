"""Which cells the held-out models weigh: rankings, how far models agree on them, and whether they can be believed."""

from milkit.explain.ranking import cell_weights, choose_cells, consensus_predictions, ranks

__all__ = ["cell_weights", "choose_cells", "consensus_predictions", "ranks"]
