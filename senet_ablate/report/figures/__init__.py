"""Figures by name: forest, table, pareto, curves, gates; what they have in common is in style."""
