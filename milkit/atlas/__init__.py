"""Where cells lie among each other.

``cell_map`` is the VERB run or store -> a map of its cells, one page with gates: ``sources`` says who is training and
held out, ``cells`` draws a sample, ``embedding`` places it, ``thumbnails`` and ``page`` show it, ``map_sentences`` say
how far it can be believed. ``patches`` is the VERB cells and their encoder -> pictures of what patches have in common,
by ``components``. ``batch`` is the VERB stores of one encoder -> how much of its features is the source of a cell, by
``sample``, ``measures`` and ``sentences``.
"""
