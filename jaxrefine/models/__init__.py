"""Networks as pure functions of plain nested dicts: one decoder driven by a config whose every field is a mechanism."""
