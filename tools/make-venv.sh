#!/bin/sh
# make-venv.sh PYTHON FOLDER LOWEST HIGHEST: a virtual environment, or a sentence that says what is missing for one.
set -eu
python=$1 folder=$2 lowest=$3 highest=$4

if ! command -v "$python" >/dev/null 2>&1; then
  echo "There is no program $python here: install Python $lowest to $highest, or name one with PYTHON=..." >&2
  exit 1
fi
"$python" - "$lowest" "$highest" <<'CHECK'
import sys

low, high = (tuple(map(int, text.split("."))) for text in sys.argv[1:])
if not low <= sys.version_info[:2] <= high:
    wanted = sys.argv[1] if low == high else "%s to %s" % tuple(sys.argv[1:])
    sys.exit("%s is Python %d.%d; this needs %s: name another one, for instance make PYTHON=python%s (for make extras,"
             " EXTRAS_PYTHON=python%s)." % (sys.executable, *sys.version_info[:2], wanted, sys.argv[2], sys.argv[2]))
CHECK
# A half-made environment must not look whole to the next run.
rm -rf "$folder"
if ! "$python" -m venv "$folder"; then
  rm -rf "$folder"
  echo "$python cannot make virtual environments. On Debian and Ubuntu: apt install python3-venv" >&2
  exit 1
fi
