#!/usr/bin/env bash
# What a machine with a GPU says of cl_lib, in at most eight minutes: CUDA tests, W1-W3 beside a hand-written loop at 1,
# 32 and 128 replicas, memory peaks. Leaves a record to commit under benchmarks/speed/records/.
#
#     bash benchmarks/speed/first_gpu_run.sh              # on a machine with a GPU
#     bash benchmarks/speed/first_gpu_run.sh --dry-run --out DIR    # the same on a CPU, with tiny sizes
#
# Needs torch, numpy, scipy, scikit-learn, pandas; without pytest the tests are skipped, without tqdm there is no bar, and
# without Fashion-MNIST's files the data are noise of its shape: the record says so.
set -u
here=$(cd "$(dirname "$0")" && pwd)
root=$(cd "$here/../.." && pwd)
export PYTHONPATH="$root:$here:$root/tests${PYTHONPATH:+:$PYTHONPATH}" OMP_NUM_THREADS="${OMP_NUM_THREADS:-4}"
cd "$root" && exec "${PYTHON:-python3}" "$here/first_gpu_run.py" "$@"
