#!/usr/bin/env python3
"""What the recipes cost: see scripts/records/costs.py."""

from records.costs import main

main()
