"""Any step compiled for hardware that is not there: what fits, what it costs, what would help."""
