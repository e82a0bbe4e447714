"""Eleven loss variants on word problems with the shipped small model: a demonstration.

Source:   the five papers' losses and those beside them (jaxrefine.losses.LOSSES has each citation)
Command:  jaxrefine run loss_variants/tiny
Cost:     at most 15 minutes on two CPU cores, everything included
Result:   a table, metrics.json and report.md with figures in the work directory. With so few prompts and steps only
          large differences can be seen (the report says how large); loss_variants/small is for claims.

Your own variant is one more row of VARIANTS: a name, an objective (a loss with its options, a scorer, the weight of
the likelihood term) and a learning rate.
"""

from jaxrefine.evaluation.variant_data import Lengths
from jaxrefine.evaluation.variants import LossVariants, Variant
from jaxrefine.scoring.objectives import ObjectiveConfig

VARIANTS = (
    # The control: supervised learning on the right candidates.
    Variant(name="mle", learning_rate=1e-4, objective=ObjectiveConfig(mle_weight=1.0)),
    # Tuna as printed (Eq. 4-6): all pairs summed, the likelihood of one good response.
    Variant(
        name="tuna_paper", learning_rate=1e-4, mle_on="best",
        objective=ObjectiveConfig(
            loss="margin_ranking", loss_options={"margin": 0.1, "gaps": "sum", "ties": "skip"}, mle_weight=1.0
        ),
    ),
    # Tuna as released: hinges averaged for each gap in rank, the likelihood of every candidate.
    Variant(
        name="tuna_released", learning_rate=1e-4, mle_on="all",
        objective=ObjectiveConfig(
            loss="margin_ranking", loss_options={"margin": 0.1, "gaps": "mean", "ties": "skip"}, mle_weight=1.0
        ),
    ),
    # ART's Truster: a reward head.
    Variant(
        name="reward_logistic", learning_rate=1e-4,
        objective=ObjectiveConfig(loss="pairwise_logistic", scorer="reward", mle_weight=1.0),
    ),
    # Math's evaluators (Eq. 8 and 9, with Eq. 12 and 13's likelihood): the model says "correct" or "incorrect".
    Variant(
        name="verdict_margin", learning_rate=1e-4,
        objective=ObjectiveConfig(
            loss="pairwise_hinge", loss_options={"margin": 1.0}, scorer="verdict", mle_weight=1.0
        ),
    ),
    Variant(
        name="verdict_xent", learning_rate=1e-4,
        objective=ObjectiveConfig(loss="verdict_cross_entropy", scorer="verdict", mle_weight=1.0),
    ),
    # Math's contrast of whole sequences (Eq. 10 and 11).
    Variant(
        name="sequence_hinge", learning_rate=1e-4,
        objective=ObjectiveConfig(loss="pairwise_hinge", loss_options={"margin": 1.0}, mle_weight=1.0),
    ),
    # Listwise.
    Variant(
        name="listwise_softmax", learning_rate=1e-4,
        objective=ObjectiveConfig(loss="listwise_softmax", loss_options={"targets": "normalize"}, mle_weight=1.0),
    ),
    Variant(
        name="list_mle", learning_rate=1e-4,
        objective=ObjectiveConfig(loss="list_mle", loss_options={"ties": "skip"}, mle_weight=1.0),
    ),
    # Preferences, without likelihood, as their papers have them: at 1e-4 they unlearn to solve.
    Variant(name="dpo", learning_rate=2e-5, objective=ObjectiveConfig(loss="dpo", loss_options={"beta": 0.1})),
    Variant(
        name="simpo", learning_rate=2e-5,
        objective=ObjectiveConfig(loss="simpo", loss_options={"beta": 2.0, "margin": 1.0}),
    ),
)  # fmt: skip


def get_config() -> LossVariants:
    return LossVariants(
        variants=VARIANTS,
        lengths=Lengths(prompt=128, response=96),
        num_train=256,
        num_held_out=160,
        num_candidates=4,
        num_base_samples=8,
        num_votes=8,
        seeds=(0, 1, 2),
        steps=32,
        groups_per_step=8,
        slots=512,
        title="Loss variants, tiny",
    )
