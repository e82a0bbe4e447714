"""The arithmetic world: a seeded generator of multi-step word problems with sub-questions, facts, tags and splits."""

from jaxrefine.data.arithmetic.generator import SPLITS, ArithmeticConfig, Problem, Tags, generate, problem

__all__ = ["SPLITS", "ArithmeticConfig", "Problem", "Tags", "generate", "problem"]
