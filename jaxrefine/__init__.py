"""jaxrefine: sample candidates, judge them, learn from the judgement, select an answer; in JAX, measured.

Importing the package is light: ``jax`` is imported by the parts that compute (README, "The code"). It sets one flag of
XLA's in this process's environment (``jaxrefine.xla_flags`` says why).
"""

from jaxrefine.xla_flags import refuse_faulty_fusions

__version__ = "0.1.0"
__all__ = ["__version__"]

refuse_faulty_fusions()
