import os
import subprocess
import sys

import pytest

SCRIPT = """
import numpy as np, numba, torch
from frustum.ops.threads import on_torch_threads

@on_torch_threads
@numba.njit(parallel=True)
def count(seen):
    for i in numba.prange(len(seen)):
        seen[i] = numba.get_num_threads()

torch.set_num_threads({threads})
for _ in range(2):
    seen = np.zeros(64, np.int64)
    count(seen)
    assert (seen == min({threads}, numba.config.NUMBA_NUM_THREADS)).all(), seen
    assert torch.get_num_threads() == {threads}, torch.get_num_threads()
torch.ones(100, 100) @ torch.ones(100, 100)
assert torch.get_num_threads() == {threads}
"""


@pytest.mark.parametrize("threads", [1, 2])
def test_numba_takes_torchs_threads_and_leaves_them(threads):
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT.format(threads=threads)], capture_output=True, text=True, env=os.environ | {"OMP_NUM_THREADS": "1"}
    )
    assert done.returncode == 0, done.stderr
