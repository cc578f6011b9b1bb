#!/usr/bin/env python3
"""How fast: see scripts/bench/, and --help."""

from bench.main import main

if __name__ == "__main__":  # not in a process that it spawns
    main()
