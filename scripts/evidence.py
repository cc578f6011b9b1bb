#!/usr/bin/env python3
"""How often `fairseq-admin doctor` is right: see scripts/studies/evidence.py."""

from studies.evidence import main

main()
