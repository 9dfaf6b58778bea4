# SPDX-License-Identifier: Apache-2.0
"""The float graph as ``model.uff`` (TensorRT up to 8.6), checked by computing it.

Run as a program it adds the artifact to a portable bundle that has none, as a new bundle:

    python -m posewire.trainer.export_uff BUNDLE OUT
"""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from posewire.bundle import verify_bundle, write_bundle
from posewire.errors import BundleError, ExitCode, PosewireError
from posewire.manifest import Manifest
from posewire.uff.evaluate import evaluate
from posewire.uff.format import read_uff
from posewire.uff.from_onnx import UffNetwork, onnx_to_uff

from .data.synthetic import SELFTEST_SEED, render_many
from .errors import TrainError

FILE = "model.uff"
LIMIT = 1e-3  # largest difference between the evaluator and ONNX Runtime, in output units
PICTURES = 2
PARITY_SEED = SELFTEST_SEED + 2


def uff_artifact(
    data: bytes,
    outputs: Sequence[str],
    pictures: NDArray[np.uint8],
    reference: Mapping[str, NDArray[np.float32]],
) -> tuple[bytes, dict[str, Any], dict[str, Any]]:
    """(the file, its entry in the manifest, the parity figure) of an ONNX graph's bytes.

    ``pictures`` are uint8 [N, H, W, 3] and ``reference`` what ONNX Runtime says of them, [N, C, H,
    W] or [N, C, length]; the first two are compared. Raises BundleError naming the operator that
    UFF lacks, TrainError (BUG) where the written file computes something else.
    """
    network = onnx_to_uff(data, "model.onnx")
    uff = read_uff(network.data, FILE)
    chosen = pictures[:PICTURES]
    worst = 0.0
    for i, picture in enumerate(chosen):
        found = evaluate(uff, {network.input: uff_input(picture, network)})
        for name in outputs:
            difference = float(np.abs(found[name][0] - reference[name][i]).max())
            if not difference <= LIMIT:
                raise TrainError(
                    f"{FILE}: {name} differs from ONNX Runtime by {difference:.2g}, limit {LIMIT}",
                    ExitCode.BUG,
                )
            worst = max(worst, difference)
    scaling = {} if network.mean is None or network.std is None else {
        "mean": list(network.mean),
        "std": list(network.std),
    }  # fmt: skip
    entry = {
        "files": [FILE],
        "format": "uff",
        "precision": "fp32",
        "input": {"layout": "NCHW", "dtype": "float32", **scaling},
        "outputs": [
            {
                "name": name,
                "layout": "NCHW" if reference[name].ndim == 4 else "NCW",
                "dtype": "float32",
            }
            for name in outputs
        ],
    }
    figure = {
        "data": f"{len(chosen)} pictures, UFF in NumPy against ONNX Runtime",
        "metric": "max_abs_diff to fp32",
        "value": float(f"{worst:.4g}"),
        "artifact": "uff",
    }
    return network.data, entry, figure


def uff_input(picture: NDArray[np.uint8], network: UffNetwork) -> NDArray[np.float32]:
    """uint8 [H, W, 3] as the network's float32 [1, 3, H, W]."""
    tensor = picture.transpose(2, 0, 1)[None].astype(np.float32)
    if network.mean is not None and network.std is not None:
        mean, std = (np.array(v, np.float32)[:, None, None] for v in (network.mean, network.std))
        tensor = (tensor - mean) / std
    return np.asarray(tensor, np.float32)


def add_uff(bundle: Path, out: Path) -> Manifest:
    """A portable bundle, with ``model.uff`` besides. Raises BundleError, TrainError."""
    from .export_onnx import run_onnx, session

    manifest = verify_bundle(bundle)
    source = next(
        (a for a in manifest.artifacts if a.format == "onnx" and a.precision == "fp32"), None
    )
    if manifest.target is not None or source is None or FILE in manifest.files:
        raise BundleError(f"{bundle}: is no portable bundle with fp32 ONNX and without {FILE}")
    data = (bundle / source.files[0]).read_bytes()
    size = (manifest.input.width, manifest.input.height)
    pictures = np.stack([picture for picture, _ in render_many(PICTURES, PARITY_SEED, *size)])
    reference = run_onnx(session(data), pictures)
    names = [output.name for output in manifest.outputs]
    content, entry, figure = uff_artifact(data, names, pictures, reference)
    raw = {key: value for key, value in manifest.raw.items() if key != "files"}
    raw["artifacts"] = [*raw["artifacts"], entry]
    raw["accuracy"] = [*raw["accuracy"], figure]
    files: dict[str, Path | bytes] = {name: bundle / name for name in manifest.files}
    return write_bundle(out, raw, {**files, FILE: content})


def main(arguments: Sequence[str]) -> int:
    """The program: see the top of this file."""
    try:
        add_uff(Path(arguments[0]), Path(arguments[1]))
    except PosewireError as error:
        print(f"posewire: {error}", file=sys.stderr)
        return int(error.code)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
