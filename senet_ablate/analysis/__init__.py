"""From runs to verdicts, and from questions to seeds. NumPy and SciPy, no torch."""
