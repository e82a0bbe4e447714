"""Learn: optimiser, state, the one train step, the loop around it, its checkpoints and writers."""
