"""Candidates in, labels out."""
