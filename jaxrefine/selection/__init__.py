"""Select: votes, re-ranking and routing over scored candidates."""
