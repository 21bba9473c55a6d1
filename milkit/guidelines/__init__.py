"""Drafts of what a journal asks for, filled from a run: checklists, the flow of patients, Table 1 and a model card.

What a run knows is told with a link to the file and the place in it where the number stands; what software cannot know
is a question (``milkit.guidelines.questions``), which stays ``TODO(human)`` until it is answered in the run's
``guidelines.yaml``. Nothing is guessed: a sentence one of whose numbers is absent from the run is not told.
"""
