"""Pure mathematics: scores and labels in, one unreduced value a group out."""
