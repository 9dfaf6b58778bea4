# SPDX-License-Identifier: Apache-2.0
"""UFF, the network format of TensorRT up to 8.6: format.py (what the file is), from_onnx.py,
to_onnx.py, and evaluate.py, which computes a UFF graph in NumPy."""
