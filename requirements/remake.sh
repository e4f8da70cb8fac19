#!/usr/bin/env bash
# Writes core.lock, test.lock and extras.lock anew; see README.md here. Needs uv, and takes the newest versions allowed.
set -euo pipefail
cd "$(dirname "$0")/.."

# compile NAME "COMMENT" ARGUMENTS...: one line per package, without what torch's own metadata pins on Linux.
compile() {
  local name=$1 comment=$2
  shift 2
  local body
  body=$(uv pip compile --quiet --upgrade --no-header --no-emit-index-url --annotation-style line "$@")
  {
    printf '# %s\n' "Written by requirements/remake.sh; edit pyproject.toml or the .in files instead." "$comment"
    grep -q '^torch==' <<<"$body" && printf '# %s\n' \
      "torch's CUDA companions on Linux (nvidia-*, cuda-*, triton) are left out on purpose: torch's own metadata pins" \
      "them where its build needs them, and listing them would force gigabytes onto machines with a CPU build."
    grep -Ev "^(nvidia-|cuda-|triton==|#)|sys_platform == 'emscripten'" <<<"$body"
  } >"requirements/$name"
  printf '%s: %s packages\n' "$name" "$(grep -c == "requirements/$name")"
}

compile core.lock "What viewloom needs to run, for Python 3.10-3.13 on Linux, macOS and Windows." \
  pyproject.toml --universal --python-version 3.10 --constraints requirements/core.in
compile test.lock "Tools for tests, checks and wheels; install together with core.lock." \
  --universal --python-version 3.10 --constraints requirements/core.lock --group test
compile extras.lock "All extras with the test tools, for the one Python where they fit together: 3.11 on x86-64 Linux." \
  pyproject.toml --python-version 3.11 --python-platform x86_64-manylinux_2_35 --all-extras --group test \
  --constraints requirements/extras.in
