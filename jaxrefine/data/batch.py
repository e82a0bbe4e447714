"""The one batch type: rows in which candidates share their prompt (README, "The packed row")."""

from __future__ import annotations

import flax.struct

from jaxrefine.typing import Array, Bool, Float, Int


@flax.struct.dataclass(frozen=True)
class PackedBatch:
    """Rows of trees: a group is prompt -> candidates -> (for verdicts) the verdict words of each candidate.

    The leaf of a scored token is a row-local number: ``(g * N + n) * W + w``. ``w = 0`` is the response itself;
    with verdicts ``W = 3`` and ``w = 1, 2`` are the words "correct" and "incorrect" after that response. Summing
    token log-probs by leaf and reshaping to [B G N W] therefore gives every sequence score at once.

    Query slot q sees key slot k exactly when ``k <= q < ends[k]``: causality, padding, packing and sharing in one
    integer a token.
    """

    tokens: Int[Array, "B S"]
    """Token ids; padding holds 0 and is never read."""
    positions: Int[Array, "B S"]
    """0..P-1 in a prompt; every response starts again at P, a verdict word where its response ended."""
    ends: Int[Array, "B S"]
    """The slot after token k's subtree; padding: its own slot + 1."""
    sources: Int[Array, "B T"]
    """The slot whose hidden state predicts the t-th scored token; padding: 0."""
    targets: Int[Array, "B T"]
    """The t-th scored token; padding: 0."""
    leaves: Int[Array, "B T"]
    """The leaf it belongs to; -1 is padding (never index with it: -1 wraps)."""
    last: Int[Array, "B G N"]
    """Slot of each response's last token; absent candidates: 0."""
    prompt_last: Int[Array, "B G"]
    """Slot of each prompt's last token; absent groups: 0."""
    group_ids: Int[Array, "B G"]
    """Index of the group in its data set; -1 marks an absent group."""
    labels: Float[Array, "B G N"]
    """Higher is better; right / wrong labels are 1 / 0; absent: 0."""
    rank_where: Bool[Array, "B G N"]
    """Candidates that take part in the ranking, pairwise, classification or preference loss."""
    mle_weight: Float[Array, "B G N"]
    """Weight of each response in the likelihood term; 0 leaves it out."""
    lengths: Int[Array, "B G N"]
    """Scored tokens of each response; absent: 0."""
    reference_scores: Float[Array, "B G N"]
    """Summed log-probs of the reference model; zeros where no reference stage ran."""
    rewards: Float[Array, "B G M"] | None = None
    """Reward of each routed-to model for the query."""
    reward_where: Bool[Array, "B G M"] | None = None
    """Which rewards are known."""
    paths: Int[Array, "B E X"] | None = None
    """For ``attention="expand"``: slots along each root-to-leaf path, -1 padded. One path a leaf of the tree; a
    group without responses has one path of its prompt alone."""
    homes: Int[Array, "B S"] | None = None
    """For ``attention="expand"``: flat index ``e * X + x`` into ``paths`` from which slot s takes its output; padding
    slots: 0."""
    num_leaves_per_candidate: int = flax.struct.field(pytree_node=False, default=1)
    """W: 1, or 3 with verdict words."""

    @property
    def num_candidates(self) -> int:
        """N."""
        return self.labels.shape[-1]

    @property
    def present(self) -> Bool[Array, "B G N"]:
        """Candidates that are there: a prompt is never empty, so no response ends at slot 0."""
        return self.last > 0
