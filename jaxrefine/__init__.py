"""jaxrefine: sample candidates, judge them, learn from the judgement, select an answer; in JAX, measured.

Importing the package is light: ``jax`` is imported by the parts that compute (README, "The map of the code").
"""

__version__ = "0.1.0"
__all__ = ["__version__"]
