#!/usr/bin/env python3
"""Back-translation: see scripts/recipes/back_translation.py, and --help."""

from recipes.back_translation import main

main()
