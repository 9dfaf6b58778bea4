# SPDX-License-Identifier: Apache-2.0
"""Parses and builds ONNX files with TensorRT-RTX; needs no GPU. Run by test_tensorrt_parse.py.

    python rtx_check.py WIDTH HEIGHT FILE...

Prints one JSON line per file: {"file", "parsed", "built", "bytes", "why"}. Exit 0: all built.
"""

from __future__ import annotations

import json
import sys
from typing import Any


def check(trt: Any, path: str, width: int, height: int) -> dict[str, Any]:
    """Batch 1 to 8 in one profile, for the GPU generation sm_89."""
    messages: list[str] = []

    class Log(trt.ILogger):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.ILogger.__init__(self)

        def log(self, severity: Any, message: str) -> None:
            if severity in (trt.ILogger.ERROR, trt.ILogger.INTERNAL_ERROR):
                messages.append(message)

    builder = trt.Builder(Log())
    network = builder.create_network(0)
    parser = trt.OnnxParser(network, builder.logger)
    result: dict[str, Any] = {"file": path, "parsed": False, "built": False, "bytes": 0}
    result["parsed"] = bool(parser.parse_from_file(path))
    if result["parsed"]:
        config = builder.create_builder_config()
        config.num_compute_capabilities = 1
        config.set_compute_capability(trt.ComputeCapability.SM89, 0)
        profile = builder.create_optimization_profile()
        name = network.get_input(0).name
        profile.set_shape(name, *((batch, height, width, 3) for batch in (1, 4, 8)))
        config.add_optimization_profile(profile)
        engine = builder.build_serialized_network(network, config)
        result["built"] = engine is not None
        result["bytes"] = 0 if engine is None else engine.nbytes
    result["why"] = "; ".join(messages)[:400]
    return result


def main(arguments: list[str]) -> int:
    import tensorrt_rtx as trt

    width, height, *files = arguments
    good = True
    for path in files:
        result = check(trt, path, int(width), int(height))
        good = good and result["built"]
        print(json.dumps(result), flush=True)
    return 0 if good else 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
