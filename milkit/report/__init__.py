"""VERB run -> report: an offline page that a haematologist reads, and the tables and figures behind it.

``write`` is the verb. ``results`` reads a run and its store, ``patients`` and ``gallery`` choose and encode what is
shown, ``summary`` and ``tables`` put numbers into words and rows, and ``page`` fills the templates, where everything
that comes from data is escaped.
"""
