# SPDX-License-Identifier: Apache-2.0
"""Compiles with TensorRT's real Python bindings and no TensorRT. Run by test_tensorrt.py, a process
a version; the bindings are on PYTHONPATH, the stub libraries on LD_LIBRARY_PATH.

    python tensorrt_double.py OUT < JOBS

JOBS is JSON, [{"bundle", "target", "precision", "options"?, "max_batch"?, "gpu"?}]; ``options`` add
to the recipe's, ``gpu`` is the compute capability of the only GPU (default: the recipe's).

The bindings are real: classes, properties, enumerations, and the signatures that pybind11 writes
into every method's docstring. Behind them is nothing, so the objects that TensorRT would make are
stood in for by doubles that have exactly the attributes of the real class, take exactly the
arguments that the real method takes, and note every call. What a version lacks fails here as it
would there.

Prints a JSON line a job: {"version", "strong", "calls": [[class, method or property, [arguments]]]}
and either {"source", "entry", "files", "key", "calibrated"}, {"missing"} or {"error", "code"}.
"""

from __future__ import annotations

import ctypes
import dataclasses
import enum
import json
import platform
import re
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import tensorrt_bindings as real  # type: ignore[import-not-found]
from posewire.targets import cuda, load_recipe, tensorrt
from posewire.targets.compiler import source_of

from posewire.bundle import verify_bundle
from posewire.errors import PosewireError

STAND_IN = ("Builder", "OnnxParser")  # the classes that the compiler itself constructs
CALLS: list[tuple[str, str, list[str]]] = []
OBJECTS: list[Any] = []
DLA_CORES = 2
_TYPE = re.compile(r"tensorrt_bindings\.tensorrt\.(\w+)")


def signatures(method: Any) -> list[tuple[list[tuple[str, str, bool]], str]]:
    """([(name, type, has default)] without self, the result's type) for every overload."""
    found = []
    for line in (method.__doc__ or "").splitlines():
        match = re.match(r"(?:\d+\. )?\w+\((self.*)\) -> (.+)$", line)
        if match is None:
            continue
        parameters = []
        for text in re.split(r", (?=\w+: )", match[1])[1:]:
            name, _, rest = text.partition(": ")
            kind, _, default = rest.partition(" = ")
            parameters.append((name, kind, bool(default)))
        found.append((parameters, match[2]))
    return found


def fits(value: Any, kind: str) -> bool:
    """Whether pybind11 would take the value for a parameter of that type."""
    named = _TYPE.search(kind)
    if named is not None:
        wanted = getattr(real, named[1])
        if named[1] == "Dims":
            return isinstance(value, tuple) and all(type(size) is int for size in value)
        held = value.kind if isinstance(value, Double) else type(value)
        return isinstance(held, type) and issubclass(held, wanted)
    if "SupportsInt" in kind or kind == "int":
        return isinstance(value, int) or hasattr(value, "__int__")
    if "uffer" in kind:
        return isinstance(value, bytes)
    simple = {"str": str, "bool": bool, "float": float}
    if kind not in simple:
        raise NotImplementedError(f"a parameter of type {kind}")
    return isinstance(value, simple[kind])


def called(owner: Double, name: str, method: Any, arguments: Any, named: Any) -> Any:
    """Checks one call against the method's signatures and answers it."""
    for parameters, result in signatures(method):
        given = dict(zip([p[0] for p in parameters], arguments, strict=False))
        if len(arguments) > len(parameters) or set(given) & set(named):
            continue
        given.update(named)
        needed = {p for p, _, optional in parameters if not optional}
        kinds = {p: kind for p, kind, _ in parameters}
        if not needed <= set(given) <= set(kinds):
            continue
        if all(fits(value, kinds[p]) for p, value in given.items()):
            CALLS.append((owner.kind.__name__, name, [shown(value) for value in given.values()]))
            return owner.answer(name, result)
    raise TypeError(f"{owner.kind.__name__}.{name}{arguments}{named}: {method.__doc__}")


def shown(value: Any) -> str:
    if isinstance(value, Double):
        return value.kind.__name__
    if isinstance(value, bytes):
        return f"{len(value)} bytes"
    return str(value)


class Double:
    """Stands for an object of a real class."""

    def __init__(self, kind: type, **values: Any) -> None:
        vars(self).update(kind=kind, values=values)
        OBJECTS.append(self)

    def __getattr__(self, name: str) -> Any:
        attribute = getattr(self.kind, name)  # AttributeError where this version lacks it
        if isinstance(attribute, property):
            if name not in self.values:
                raise NotImplementedError(f"{self.kind.__name__}.{name} is read")
            return self.values[name]
        return lambda *arguments, **named: called(self, name, attribute, arguments, named)

    def __setattr__(self, name: str, value: Any) -> None:
        attribute = getattr(self.kind, name)
        if not isinstance(attribute, property) or attribute.fset is None:
            raise AttributeError(f"can't set attribute {name}")
        signature = (attribute.fset.__doc__ or "").split("arg1: ")
        if len(signature) > 1 and not fits(value, signature[1].split(") -> ")[0]):
            raise TypeError(f"{self.kind.__name__}.{name} = {value!r}")
        CALLS.append((self.kind.__name__, name, [shown(value)]))
        self.values[name] = value

    def answer(self, name: str, result: str) -> Any:
        """What the method returns: as told, else a double of the result's class."""
        if name in self.values:
            return self.values[name]
        if result in ("None", "bool", "int"):
            return {"None": None, "bool": True, "int": 0}[result]
        named = _TYPE.search(result)
        if named is None:
            raise NotImplementedError(f"{name} returns {result}")
        kind = getattr(real, named[1])
        if named[1] == "IHostMemory":  # has the buffer protocol
            return b"serialised by nobody"
        return Network() if kind is real.INetworkDefinition else Double(kind)


class Network(Double):
    """A network as the parser leaves it: with the manifest's tensors."""

    tensors: dict[str, list[Double]]

    def __init__(self) -> None:
        sizes = {"num_inputs": 1, "num_outputs": len(self.tensors["get_output"])}
        super().__init__(real.INetworkDefinition, **sizes)

    def __getattr__(self, name: str) -> Any:
        method = super().__getattr__(name)
        if name not in self.tensors:
            return method

        def get(index: int) -> Double:
            method(index)  # checks the call
            return self.tensors[name][index]

        return get


def tensors_of(manifest: Any, artifact: Any) -> dict[str, list[Double]]:
    """What the parser would find: by the method that returns them."""
    size = (-1, manifest.input.height, manifest.input.width, 3)
    image = Double(real.ITensor, name=manifest.input.name, shape=size, dtype=real.DataType.UINT8)
    outputs = [
        Double(real.ITensor, name=one.name, dtype=real.DataType.FLOAT) for one in artifact.outputs
    ]
    return {"get_input": [image], "get_output": outputs}


def module() -> ModuleType:
    """The bindings, with stand-ins for the classes that need TensorRT behind them."""
    made = ModuleType("tensorrt")

    def stand_in(name: str) -> Any:
        def construct(*arguments: Any, **named: Any) -> Double:
            values = {"num_DLA_cores": DLA_CORES, "num_errors": 0} if name == "Builder" else {}
            double = Double(getattr(real, name), **values)
            called(double, "__init__", getattr(real, name).__init__, arguments, named)
            return double

        return construct

    for name in dir(real):
        setattr(made, name, stand_in(name) if name in STAND_IN else getattr(real, name))
    made.__version__ = real.__version__  # type: ignore[attr-defined]
    return made


# ---- the calibrator, called as TensorRT's builder calls it


class Copies:
    """cuda-python as the calibrator uses it: remembers what was copied to the GPU."""

    def __init__(self) -> None:
        self.copied: list[int] = []
        self.cudaMemcpyKind = enum.Enum("Kind", "cudaMemcpyHostToDevice")

    def cudaMalloc(self, size: int) -> tuple[int, int]:  # noqa: N802
        self.size = size
        return 0, 0x1000

    def cudaMemcpy(self, to: int, source: int, size: int, kind: Any) -> tuple[int]:  # noqa: N802
        assert (to, size) == (0x1000, self.size)
        self.copied.append(sum(ctypes.string_at(source, size)))
        return (0,)


def calibrate(calibrator: Any, copies: Copies) -> dict[str, Any]:
    """Runs the calibrator through its virtual table, to its last batch."""
    library = ctypes.CDLL(f"libnvinfer.so.{real.__version__.split('.')[0]}")
    for name in ("batch_size", "get_batch", "read", "write"):
        getattr(library, f"calibrator_{name}").argtypes = [ctypes.c_void_p, ctypes.c_int]
    # pybind11 keeps the C++ object's address behind the Python object's head. From 10 on four
    # entries of IVersionedInterface come before the calibrator's own.
    this = ctypes.c_void_p.from_address(id(calibrator) + 16)
    first = 0 if real.__version__.startswith("8") else 4
    pointers, names = (ctypes.c_void_p * 1)(), (ctypes.c_char_p * 1)(b"image")
    size, length, batches = library.calibrator_batch_size(this, first), ctypes.c_size_t(), 0
    library.calibrator_read.restype = ctypes.c_void_p
    before = library.calibrator_read(this, first, ctypes.byref(length))
    while library.calibrator_get_batch(this, first, pointers, names, ctypes.c_int(1)) & 1:
        assert pointers[0] == 0x1000
        batches += 1
    library.calibrator_write(this, first, ctypes.c_char_p(b"a table"), ctypes.c_size_t(7))
    after = library.calibrator_read(this, first, ctypes.byref(length))
    table = ctypes.string_at(after, length.value).decode()
    return {
        "size": size,
        "batches": batches,
        "before": before,
        "table": table,
        "sums": copies.copied,
    }


def run(job: dict[str, Any], out: Path) -> dict[str, Any]:
    """One compilation; see the module's description."""
    CALLS.clear()
    OBJECTS.clear()
    strong = real.NetworkDefinitionCreationFlag.__members__.get("STRONGLY_TYPED")
    said: dict[str, Any] = {"version": real.__version__, "calls": CALLS}
    said["strong"] = None if strong is None else 1 << int(strong)
    copies = Copies()
    for name in ("cuda", "cuda.bindings"):
        sys.modules[name] = ModuleType(name)
    sys.modules["cuda.bindings.runtime"] = copies  # type: ignore[assignment]
    recipe = load_recipe(job["target"])
    recipe = dataclasses.replace(recipe, options={**recipe.options, **job.get("options", {})})
    kinds = recipe.options.get("compute_capabilities", [89])
    gpu = cuda.Gpu("a GPU", job.get("gpu", kinds[0]), 8000)  # type: ignore[index]
    machines = recipe.options.get("machines", [platform.machine()])
    platform.machine = lambda: machines[0]  # type: ignore[index]
    cuda.look = lambda *_: cuda.Cuda((gpu,), "12.6", "540.4")
    bundle, precision = Path(job["bundle"]), job["precision"]
    manifest = verify_bundle(bundle)
    try:
        why = tensorrt.missing(precision, recipe)
        if why is not None:
            return {**said, "missing": why}
        kind = source_of(tensorrt, precision, recipe)  # type: ignore[arg-type]
        artifact = next(a for a in manifest.artifacts if (a.format, a.precision) == kind)
        Network.tensors = tensors_of(manifest, artifact)
        source, batch = bundle / artifact.files[0], job.get("max_batch", recipe.max_batch)
        files, entry = tensorrt.build(source, manifest, artifact, precision, out, recipe, batch)
        said |= {
            "source": kind,
            "entry": entry,
            "files": {n: p.read_text() for n, p in files.items()},
        }
        said["key"] = [tensorrt.version(recipe), tensorrt.driver(recipe), tensorrt.device(recipe)]
        held = [o.values["int8_calibrator"] for o in OBJECTS if "int8_calibrator" in o.values]
        said["calibrated"] = calibrate(held[0], copies) if held else None
    except PosewireError as error:
        said |= {"error": str(error), "code": int(error.code)}
    return said


def main(out: str) -> None:
    sys.modules["tensorrt"] = module()
    for job in json.load(sys.stdin):
        print(json.dumps(run(job, Path(out))), flush=True)


if __name__ == "__main__":
    main(sys.argv[1])
