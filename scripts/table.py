#!/usr/bin/env python3
"""The tables of a Markdown file, from records: see scripts/records/table.py."""

from records.table import main

main()
