# SPDX-License-Identifier: Apache-2.0
"""Makes the .deb. Standard library only: it runs before anything of ours is installed (Python 3.8).

The package holds a virtual environment that needs no making at the device, ``/usr/lib/posewire``::

    pyvenv.cfg                    "home = /usr/bin": the distribution's Python, one minor version
    bin/python3                   link to /usr/bin/python3.X, which runs `posewire compile` too
    lib/python3.X/site-packages/  posewire (with _core and bin/posewire-engine), its dependencies

The distribution's own packages stay visible behind it, so that NVIDIA's TensorRT module is found
on a Jetson. Dependencies come from PyPI as wheels while the package is made, never when it is
installed. The libraries of the distribution that engine and module link become ``Depends``, read
from the ``.shlibs`` files of the root file system that they were linked against.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import NoReturn

ROOT = Path(__file__).resolve().parent.parent
DEB = ROOT / "scripts" / "deb"
TRIPLETS = {"amd64": "x86_64-linux-gnu", "arm64": "aarch64-linux-gnu"}
MACHINES = {"amd64": "x86_64", "arm64": "aarch64"}
MAINTAINER = "posewire maintainers <maintainers@posewire.invalid>"
# Newest first; a wheel for an older C library runs on a newer one.
GLIBC_MINORS = (39, 36, 35, 34, 31, 28, 27, 26, 24, 17)


def fail(why: str, code: int = 69) -> NoReturn:
    print(f"package: {why}", file=sys.stderr)
    sys.exit(code)


def say(text: str) -> None:
    print(f"package: {text}", file=sys.stderr, flush=True)


def run(*command: object, env: dict[str, str] | None = None) -> None:
    result = subprocess.run([str(word) for word in command], env=env, check=False)
    if result.returncode != 0:
        fail(f"failed ({result.returncode}): {' '.join(map(str, command))[:300]}", 70)


def output(*command: object) -> str:
    return subprocess.run(
        [str(word) for word in command], check=True, stdout=subprocess.PIPE, text=True
    ).stdout.strip()


class Target:
    """The distribution that the package is for, as its root file system tells."""

    def __init__(self, root: Path, arch: str) -> None:
        self.root, self.arch = root, arch
        self.native = root == Path("/")
        self.triplet = TRIPLETS[arch]
        release = dict(
            line.split("=", 1)
            for line in (root / "etc/os-release").read_text("utf-8").splitlines()
            if "=" in line
        )
        self.distribution = "".join(release[key].strip('"') for key in ("ID", "VERSION_ID"))
        self.glibc_minor = self._glibc_minor()

    def _glibc_minor(self) -> int:
        for path in sorted((self.root / "usr/lib" / self.triplet).glob("libc.so.6")) or sorted(
            (self.root / "lib" / self.triplet).glob("libc.so.6")
        ):
            found = re.findall(rb"GNU C Library [^\n]*version 2\.(\d+)", path.read_bytes())
            if found:
                return int(found[0])
        fail(f"{self.root}: no C library for {self.arch}: no root file system for {self.arch}")

    def python(self) -> str:
        """ "python3.11": what /usr/bin/python3 is there."""
        try:
            name = os.readlink(self.root / "usr/bin/python3")
        except OSError:
            fail(f"{self.root}: no /usr/bin/python3 in it (install python3 and python3-dev there)")
        if not re.fullmatch(r"python3\.\d+", name):
            fail(f"{self.root}/usr/bin/python3 leads to {name}, not to python3.X")
        if int(name.split(".")[1]) < 10:
            fail(f"{self.root} has {name} and posewire needs 3.10: --engine-only makes the engine")
        return name


def project() -> tuple[str, list[str]]:
    """Version and build requirements, from pyproject.toml (by hand: 3.10 has no tomllib)."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    version = re.search(r'^version = "([^"]+)"', text, re.MULTILINE)
    requires = re.search(r"^requires = \[(.*?)\]", text, re.MULTILINE)
    if version is None or requires is None:
        fail("pyproject.toml: no version or no build requirements", 70)
    return version[1], re.findall(r'"([^"]+)"', requires[1])


def dependencies() -> list[str]:
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = re.search(r"^dependencies = \[\n(.*?)^\]", text, re.MULTILINE | re.DOTALL)
    if block is None:
        fail("pyproject.toml: no dependencies", 70)
    return [match[1] for match in re.finditer(r'^\s*"((?:[^"\\]|\\.)+)"', block[1], re.MULTILINE)]


def packages() -> dict[str, str]:
    """Installed folder -> folder of the repository, as wheel.packages maps them."""
    text = (ROOT / "pyproject.toml").read_text("utf-8")
    block = text.split("[tool.scikit-build.wheel.packages]\n", 1)[1].split("\n\n", 1)[0]
    return dict(re.findall(r'^"([^"]+)" = "([^"]+)"', block, re.MULTILINE))


def builder_python(name: str) -> str:
    """A Python here of the device's minor version: wheels and byte code are made for it."""
    wanted = name.replace("python", "")
    for candidate in (
        sys.executable,
        f"/usr/bin/{name}",
        shutil.which(name),
        shutil.which("python3"),
    ):
        if not candidate or not os.access(candidate, os.X_OK):
            continue
        asked = subprocess.run(
            [candidate, "-c", "import ensurepip, sys; print('%d.%d' % sys.version_info[:2])"],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            check=False,
        )
        if asked.stdout.decode().strip() == wanted:
            return candidate
    fail(
        f"the device has {name} and this machine has none with pip: wheels are chosen by the "
        "Python that runs pip. Install it, or make the package on the device itself"
    )


def tools(work: Path, python: str, requires: list[str]) -> Path:
    """A small environment with the build requirements; OpenVINO comes with the device's wheels."""
    wanted = "\n".join(line for line in requires if not line.startswith("openvino"))
    stamp = work / "tools" / "posewire-requirements"
    if not stamp.exists() or stamp.read_text() != wanted:
        say("an environment for building")
        shutil.rmtree(work / "tools", ignore_errors=True)
        run(python, "-m", "venv", work / "tools")
        run(work / "tools/bin/python", "-m", "pip", "install", "-q", *wanted.split("\n"))
        stamp.write_text(wanted)
    return work / "tools" / "bin" / "python"


def install_wheels(
    target: Target, python: Path, version: str, site: Path, wanted: list[str]
) -> None:
    """Every dependency as a wheel for the device into ``site``; kept while the list is the same."""
    stamp = site.parent / "wheels.txt"
    if stamp.exists() and stamp.read_text() == "\n".join(wanted):
        return
    shutil.rmtree(site, ignore_errors=True)
    say(f"{len(wanted)} dependencies and theirs, as wheels for {target.arch}")
    machine, command = (
        MACHINES[target.arch],
        [python, "-m", "pip", "install", "-q", "--target", site],
    )
    command += ["--only-binary", ":all:", "--no-compile"]
    if not target.native:
        # Each tag apart: with an old one alone pip silently takes ancient releases.
        command += ["--implementation", "cp", "--python-version", version]
        for minor in GLIBC_MINORS:
            if minor <= target.glibc_minor:
                command += ["--platform", f"manylinux_2_{minor}_{machine}"]
        command += ["--platform", f"manylinux2014_{machine}"]
    run(*command, *wanted)
    shutil.rmtree(site / "bin", ignore_errors=True)  # their programs; ours are in /usr/bin
    stamp.write_text("\n".join(wanted))


def build(
    target: Target, work: Path, options: argparse.Namespace, python: Path | None, site: Path
) -> Path:
    """Engine and module, installed into a folder laid out like the Python package. Returns it."""
    tree, made = work / "cmake", work / "made"
    command: list[object] = ["cmake", "-S", ROOT, "-B", tree, "-G", "Ninja"]
    command += ["-DCMAKE_BUILD_TYPE=Release", "-DPOSEWIRE_TESTS=OFF"]
    command += ["-DOpenCVModules_highgui_LIBRARY="]  # a service opens no window
    openvino = site / "openvino" / "cmake"
    command.append(f"-DPOSEWIRE_OPENVINO={'ON' if openvino.is_dir() else 'OFF'}")
    if openvino.is_dir():
        command.append(f"-DOpenVINO_DIR={openvino}")
    if not target.native:
        command.append(f"-DCMAKE_TOOLCHAIN_FILE={ROOT}/targets/jetson/aarch64.cmake")
        command.append(f"-DPOSEWIRE_SYSROOT={target.root}")
        command.append(
            "-DCMAKE_FIND_ROOT_PATH_MODE_PACKAGE=BOTH"
        )  # nanobind and OpenVINO lie outside
    if shutil.which("ccache"):
        command.append("-DCMAKE_CXX_COMPILER_LAUNCHER=ccache")
    command.append(f"-DPOSEWIRE_PYTHON={'OFF' if options.engine_only else 'ON'}")
    if python is not None:
        name = target.python()
        command.append(f"-DPython_EXECUTABLE={python}")
        if not target.native:
            command.append(f"-DPython_INCLUDE_DIR={target.root}/usr/include/{name}")
            tag = f".cpython-{name[6:].replace('.', '')}-{target.triplet}.so"
            command += [f"-DNB_SUFFIX={tag}", "-DNB_SUFFIX_S=.abi3.so"]
    say(f"configuring and building in {tree}")
    with open(work / "configure.log", "wb") as log:
        configured = subprocess.run(list(map(str, command)), stdout=log, stderr=log, check=False)
    if configured.returncode != 0:
        print((work / "configure.log").read_text("utf-8", "replace")[-4000:], file=sys.stderr)
        fail("cmake did not configure (see above)", 70)
    run("cmake", "--build", tree, "--parallel", options.jobs)
    shutil.rmtree(made, ignore_errors=True)
    run("cmake", "--install", tree, "--prefix", made, "--strip")
    return made


def copy_tree(source: Path, folder: Path) -> None:
    """Files and folders without what Python or an editor left there."""
    ignore = shutil.ignore_patterns("__pycache__", "*.pyc", "*.partial", ".*")
    shutil.copytree(source, folder, ignore=ignore, dirs_exist_ok=True)


def lay_out_python(target: Target, tree: Path, site: Path, made: Path, python: str) -> None:
    """The environment described on top."""
    name = target.python()
    home = tree / "usr/lib/posewire"
    here = home / "lib" / name / "site-packages"
    here.parent.mkdir(parents=True)
    shutil.copytree(site, here, symlinks=True)
    for installed, folder in packages().items():
        copy_tree(ROOT / folder, here / installed)
    shutil.copytree(made, here / "posewire", dirs_exist_ok=True)
    version, _ = project()
    info = here / f"posewire-{version}.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: posewire\nVersion: {version}\n")
    (info / "INSTALLER").write_text("dpkg\n")
    (home / "bin").mkdir()
    (home / "bin/python3").symlink_to(f"/usr/bin/{name}")
    (home / "pyvenv.cfg").write_text(
        f"home = /usr/bin\ninclude-system-site-packages = true\nversion = {name[6:]}\n"
    )
    say("byte code")
    # By content, not by time: dpkg and flash tools set times as they like.
    run(python, "-m", "compileall", "-q", "-j", "0", "--invalidation-mode", "unchecked-hash",
        "-s", tree, "-p", "/", here)  # fmt: skip
    program = tree / "usr/bin/posewire"
    program.parent.mkdir(parents=True)
    program.write_text(
        "#!/bin/sh\n# -I: no working directory and no PYTHONPATH puts another posewire first.\n"
        'exec /usr/lib/posewire/bin/python3 -I -m posewire.cli "$@"\n'
    )
    program.chmod(0o755)
    engine = f"../lib/posewire/lib/{name}/site-packages/posewire/bin/posewire-engine"
    (tree / "usr/bin/posewire-engine").symlink_to(engine)


def lay_out_system(tree: Path, options: argparse.Namespace) -> None:
    """Units, users, folders, the shipped networks, what policy wants to be documented."""
    units = tree / "usr/lib/systemd/system"
    units.mkdir(parents=True)
    for unit in sorted((ROOT / "systemd").glob("*.service")):
        shutil.copy(unit, units)
    for kind in ("sysusers.d", "tmpfiles.d"):
        copy_tree(ROOT / "systemd" / kind, tree / "usr/lib" / kind)
    share = tree / "usr/share/posewire"
    share.mkdir(parents=True)
    shutil.copy(DEB / "posewire.toml", share / "posewire.toml.example")
    if options.models:
        copy_tree(ROOT / "models", share / "models")


def elf_files(tree: Path) -> Iterable[Path]:
    for path in sorted(tree.rglob("*")):
        if path.is_file() and not path.is_symlink():
            with open(path, "rb") as file:
                if file.read(4) == b"\x7fELF":
                    yield path


def needed(path: Path) -> set[str]:
    return set(re.findall(r"NEEDED\s+(\S+)", output("objdump", "-p", path)))


def library_packages(target: Target, made: Path, site: Path) -> list[str]:
    """``Depends`` for what engine and module link from the distribution."""
    own = {path.name for path in site.rglob("*.so*")} | {path.name for path in made.rglob("*.so*")}
    wanted: set[str] = set()
    for path in elf_files(made):
        wanted |= needed(path)
    known: dict[str, str] = {}
    for path in sorted((target.root / "var/lib/dpkg/info").glob("*.shlibs")):
        if f":{target.arch}." not in path.name and not target.native:
            continue
        for line in path.read_text("utf-8").splitlines():
            words = line.split(None, 2)
            if len(words) == 3 and not words[0].endswith(":"):  # "udeb:" lines are the installer's
                known[f"{words[0]} {words[1]}"] = words[2]
    depends = set()
    for soname in sorted(wanted - own):
        if soname.startswith(("ld-linux", "linux-vdso")):
            continue
        key = _shlibs_key(soname)
        if key not in known:
            fail(f"{soname}: no package in {target.root} says that it ships this library", 70)
        depends.add(known[key])
    return sorted(depends)


def _shlibs_key(soname: str) -> str:
    """ "libx.so.5" -> "libx 5"; "libx-5.so" -> "libx 5" (deb-shlibs(5))."""
    found = re.fullmatch(r"(.+?)\.so\.(.+)", soname) or re.fullmatch(r"(.+)-(.+)\.so", soname)
    return f"{found[1]} {found[2]}" if found else soname


def write_control(
    target: Target, tree: Path, options: argparse.Namespace, depends: list[str]
) -> str:
    """DEBIAN/*; returns the package's file name."""
    name = "posewire-engine" if options.engine_only else "posewire"
    version = f"{project()[0]}+{target.distribution}"
    if options.engine_only:
        line = "posewire's engine alone: no daemon, no Python"
    else:
        line = "human poses over MQTT: cameras in, JSON out"
        python = target.python()
        after = f"python3.{int(python.split('.')[1])}"
        depends = [
            after,
            *(f"systemd | systemd-standalone-{name}" for name in ("sysusers", "tmpfiles")),
            *depends,
        ]
    control = tree / "DEBIAN"
    control.mkdir()
    kib = sum(path.lstat().st_size for path in tree.rglob("*")) // 1024
    text = (DEB / "control").read_text("utf-8")
    values = {"NAME": name, "VERSION": version, "ARCH": target.arch, "MAINTAINER": MAINTAINER,
              "KIB": str(kib), "DEPENDS": ", ".join(depends), "LINE": line}  # fmt: skip
    for key, value in values.items():
        text = text.replace(f"@{key}@", value)
    (control / "control").write_text(text, "utf-8")
    if not options.engine_only:
        for script in ("postinst", "prerm", "postrm"):
            shutil.copy(DEB / script, control / script)
            (control / script).chmod(0o755)
    documents = tree / "usr/share/doc" / name
    documents.mkdir(parents=True)
    shutil.copy(DEB / "copyright", documents / "copyright")
    return f"{name}_{version}_{target.arch}.deb"


def set_modes(tree: Path) -> None:
    """0755 and 0644, whatever the umask and the wheels said."""
    for path in [tree, *tree.rglob("*")]:
        if path.is_symlink():
            continue
        runs = path.is_dir() or path.stat().st_mode & stat.S_IXUSR
        path.chmod(0o755 if runs else 0o644)


def read_options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="package.sh", description="Makes posewire's .deb.")
    native = output("dpkg", "--print-architecture")
    parser.add_argument("--arch", choices=sorted(TRIPLETS), default=native)
    parser.add_argument("--root", type=Path, help="root file system that it is for (default: /)")
    parser.add_argument(
        "--out", type=Path, default=ROOT / "dist", help="folder of the result (dist)"
    )
    parser.add_argument(
        "--without-openvino", action="store_true", help="leave out OpenVINO (Jetson)"
    )
    parser.add_argument("--engine-only", action="store_true", help="no Python (JetPack 5)")
    parser.add_argument(
        "--no-models", dest="models", action="store_false", help="no shipped network"
    )
    parser.add_argument("--compression", type=int, default=6, help="of xz, 0 to 9 (6)")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1)
    options = parser.parse_args(arguments)
    if options.arch != native and options.root is None:
        parser.error(f"--arch {options.arch}: name its root file system with --root DIR")
    options.root = (options.root or Path("/")).resolve()
    return options


def main() -> int:
    options = read_options(sys.argv[1:])
    target = Target(options.root, options.arch)
    flavour = "engine" if options.engine_only else "whole"
    flavour += "-plain" if options.without_openvino else ""
    work = ROOT / "build" / "package" / f"{target.distribution}-{target.arch}-{flavour}"
    work.mkdir(parents=True, exist_ok=True)
    tree, site = work / "tree", work / "site"
    python: Path | None = None
    if not options.engine_only:
        name = target.python()
        builder = builder_python(name)
        python = tools(work, builder, project()[1])
        wanted = [line for line in dependencies()
                  if not (options.without_openvino and line.startswith("openvino"))]  # fmt: skip
        install_wheels(target, python, name[6:], site, wanted)
    made = build(target, work, options, python, site)
    depends = library_packages(target, made, site)
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir(parents=True)
    if options.engine_only:
        copy_tree(made, tree / "usr/lib/posewire")
        (tree / "usr/bin").mkdir(parents=True)
        (tree / "usr/bin/posewire-engine").symlink_to("../lib/posewire/bin/posewire-engine")
    else:
        lay_out_python(target, tree, site, made, str(python))
        lay_out_system(tree, options)
    file_name = write_control(target, tree, options, depends)
    set_modes(tree)
    options.out.mkdir(parents=True, exist_ok=True)
    aside = options.out / f".{file_name}.partial"
    say("packing")
    run(
        "dpkg-deb", "--root-owner-group", f"-z{options.compression}", "-Zxz", "--build", tree, aside
    )
    os.replace(aside, options.out / file_name)
    size = (options.out / file_name).stat().st_size
    print(f"{options.out / file_name} ({size / 1e6:.0f} MB)")
    return 0


if __name__ == "__main__":
    sys.exit(main())
