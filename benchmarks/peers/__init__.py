"""Our steps beside the peers', in one run: ``python -m benchmarks.peers`` (see ``__main__``).

Each side is a process of its own, started with the Python of its own environment and handed the same weights and token
ids; ``worker`` is its half of the protocol (standard library only), ``sides`` the other.
"""
