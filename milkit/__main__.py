"""``python -m milkit``, also under ``torchrun``."""

from milkit.cli import main

main()
