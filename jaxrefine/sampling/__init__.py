"""Sample: decoding policies, and generation from one prefill a prompt."""
