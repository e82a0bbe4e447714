"""Is it any good? Metrics with intervals, the comparison of loss variants, plots and reports."""
