"""VERB stores of labelled cells -> what frozen features know of them: k-NN, linear probe, few-shot curves."""
