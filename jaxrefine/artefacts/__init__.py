"""What a run leaves on disk: atomic files, manifests, journals, stages, and the progress it shows meanwhile."""
