"""One module a model family: its `config.json` to a TransformerConfig and back, and its weight rules."""
