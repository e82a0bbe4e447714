"""Finished ART runs side by side: ablations beside art/tiny, and runs of several seeds as one with their spread.

Source:   https://arxiv.org/abs/2311.07961, the ablations
Command:  for SEED in 0 1 2; do jaxrefine run art/tiny --seed $SEED --workdir runs/art/tiny$SEED; done
          jaxrefine run art/comparison --runs tiny=runs/art/tiny0 tiny=runs/art/tiny1 tiny=runs/art/tiny2
          "own outputs=runs/art/tiny_own_outputs"
          The first setting named is the one that the others are compared with, on the seeds that both have
Cost:     none of its own: it reads the reports of the runs
Result:   accuracy with intervals over queries and seeds and each run's own; differences from the first setting; whether
          deciding, the Truster and refining instead of a vote pay, paired by query; shares refined and reverted, what
          Asker and Truster tell apart, FLOPs: report.md and metrics.json in the work directory
"""

from jaxrefine.systems.art_comparison import ArtComparison


def get_config() -> ArtComparison:
    return ArtComparison()
