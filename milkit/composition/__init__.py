"""What kinds of cells a run's patients have, and which of them the models weigh: typed by a probe of labelled cells.

``verb.compose`` is the verb. ``reference`` reads the labelled cells, ``cell_typing`` types others by them and knows
what it cannot type, ``rankings`` has the cells at the top, ``differential`` counts, ``enrichment`` compares, and
``known_types`` checks against the types that the run's store knows; ``table`` documents ``cell_types.parquet``.
"""
