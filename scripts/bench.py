#!/usr/bin/env python3
"""How fast: see scripts/bench/, and --help."""

from bench.main import main

main()
