"""The learners and mixtures of this package under t5x: see docs/t5x.md."""
