"""Runs a command that must fail as a user's mistake does: exit code 2, one line on standard error. Prints it."""

import subprocess
import sys

result = subprocess.run(sys.argv[1:], capture_output=True, text=True)
lines = result.stderr.splitlines()
if result.returncode != 2 or len(lines) != 1 or result.stdout:
    sys.exit(f"exit code {result.returncode}, {len(lines)} lines on stderr:\n{result.stderr}stdout:\n{result.stdout}")
print(lines[0])
