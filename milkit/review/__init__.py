"""VERBS run -> blinded review, and readers' labels -> agreement: what haematologists say of cells without knowing more.

``out`` writes one offline page with cells in shuffled order under random codes, and beside it the key that says which
cells they are; ``sample`` chooses them, ``page`` fills the template, from which everything but codes and pixels is kept
away. ``labels`` reads what readers send back, ``compare`` sets readers beside each other and beside the model, and
``unblind`` puts it together and keeps the expert labels where other commands find them.
"""
