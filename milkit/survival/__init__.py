"""Survival of a run's patients: what held-out predictions say of the time until an event.

``outcome`` reads who was followed how long, and what was predicted of them; ``predicted`` makes risks of folds
comparable, groups patients, and predicts survival without a patient's own outcome; ``curves`` has Kaplan-Meier tables
and the log-rank test, ``terms`` and ``cox`` hazard ratios, ``scores`` the c-index, the Brier score and calibration;
``warn`` says what is to be known of them; ``verb`` writes it all. The formulas that several figures share are in
``milkit.statistics.survival`` and ``concordance``.
"""
