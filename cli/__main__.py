# SPDX-License-Identifier: Apache-2.0
"""``python -m posewire.cli``: the same program, for places where the script is not on PATH."""

from . import main

if __name__ == "__main__":
    main()
