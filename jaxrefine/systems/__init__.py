"""Whole recipes made of the library's parts; they never import each other."""
