"""Run a module of the scripts' folders: python scripts MODULE [ARGUMENTS ...]"""

import os
import runpy
import signal
import sys

os.environ["PYTHONUTF8"] = "1"  # of the processes that it starts: text is UTF-8
if len(sys.argv) < 2:
    sys.exit(__doc__)
# this checkout's package, whatever is installed
sys.path.insert(1, os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # what it has started ends with it
try:
    runpy.run_module(sys.argv.pop(1), run_name="__main__", alter_sys=True)
except KeyboardInterrupt:
    sys.exit(130)  # as a shell reports SIGINT
