"""Other people's checkpoints, read onto a mesh and written back in the layout that `transformers` loads."""
