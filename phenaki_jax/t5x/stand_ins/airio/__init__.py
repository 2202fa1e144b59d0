"""Stands in for airio, which t5x imports and needs for data that comes from there alone."""
