"""Stands in for jestimator, of which t5x imports one optimizer."""
