# SPDX-License-Identifier: MIT
"""What ``gpu_check.py`` is made of: `sections` lists its sections, each a module with ``run``.

`runner` runs them in processes of their own, `report` is what one writes, `summary` what is printed
of all, with the bars of `held`. `scenes`, `native`, `place` and `clock` are what sections share.
"""
