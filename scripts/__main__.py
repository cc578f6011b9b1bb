"""Run a module of the scripts' folders: python scripts MODULE [ARGUMENTS ...]"""

import runpy
import sys

runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
