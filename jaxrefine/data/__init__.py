"""Text in, arrays out: examples, readers, templates, tokenizers, packing and loading. NumPy only."""
