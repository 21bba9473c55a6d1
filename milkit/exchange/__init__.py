"""VERBS bags -> files of other tools, and back, so that bags travel without images.

``patient_files`` is the format of one HDF5 a patient, ``exporting`` and ``importing`` are the verbs, and ``labels``
finds the labels of what was imported.
"""
