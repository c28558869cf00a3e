# SPDX-License-Identifier: MIT
"""What crfseg.torch says where PyTorch is not installed."""

import subprocess
import sys

import pytest


@pytest.mark.parametrize("module", ["crfseg.torch", "crfseg.torch.models"])
def test_missing_pytorch_is_named_with_the_extra_that_brings_it(module):
    code = f"import sys; sys.modules['torch'] = None; import {module}"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert done.stderr.splitlines()[-1] == (
        "ModuleNotFoundError: crfseg.torch needs PyTorch; install it with: "
        "pip install 'dense-crfseg[torch]'"
    )
