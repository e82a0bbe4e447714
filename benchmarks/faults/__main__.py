"""Faults injected in numbers, with seeds: ``python -m benchmarks.faults [NAME …] [--trials N] [--seed S] [--write]``.

Prints a line a fault as it ends; ``--write`` puts the table into benchmarks/RELIABILITY.md, keeping the rows of faults
that this run did not inject.
"""
