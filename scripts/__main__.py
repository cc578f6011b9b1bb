"""Run a module of the scripts' folders: python scripts MODULE [ARGUMENTS ...]"""

import runpy
import sys

if len(sys.argv) < 2:
    sys.exit(__doc__)
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)  # as a shell reports SIGINT
