"""doctor and list."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from frustum.cli import doctor
from tests.cli.conftest import Run


def test_doctor_names_everything(frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("doctor", "--folder", tmp_path, "--json", tmp_path / "doctor.json")
    found = json.loads((tmp_path / "doctor.json").read_text())
    names = {check["name"] for check in found["checks"]}
    assert {"frustum", "python", "packages", "torch", "cpu", "gpu", "numba", "bev_pool", "pretrained", "memory", "disk"} <= names
    assert code == (0 if found["ok"] else 1)
    for check in found["checks"]:
        assert check["name"] in out
        assert check["level"] in {"ok", "note", "fail"}
        assert check["level"] == "ok" or check["fix"], "what is not fine comes with its fix"


def test_doctor_reports_a_check_that_breaks(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def broken():
        raise RuntimeError("library is broken")

    broken.__name__ = "_torch"
    monkeypatch.setattr(doctor, "_torch", broken)
    found = {check.name: check for check in doctor.diagnose(tmp_path)}
    assert found["torch"].level == "fail"
    assert "library is broken" in found["torch"].seen
    assert "disk" in found, "the other checks still run"


def test_doctor_prints_its_fixes_whole(frustum: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    fix = 'pip install -c constraints.txt -e ".[pretrained]"'
    monkeypatch.setattr(doctor, "diagnose", lambda folder: [doctor.Check("pretrained", "note", f"in {folder}", fix)])
    code, out, _ = frustum("doctor", "--folder", tmp_path / "[bold]")
    assert code == 0
    assert fix in out
    assert str(tmp_path / "[bold]") in out


@pytest.mark.parametrize("variable", ["OMP_NUM_THREADS", "MKL_NUM_THREADS"])
def test_doctor_says_who_limits_the_threads(variable: str, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    monkeypatch.setenv(variable, "1")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    monkeypatch.setattr(doctor, "count_cores", lambda: 4)
    (check,) = doctor._torch()
    assert check.level == "note"
    assert check.seen.endswith(f", 1 thread of 4 cores, because {variable}=1")
    assert f"unset {variable}" in check.fix
    monkeypatch.setattr(doctor, "count_cores", lambda: 1)
    (check,) = doctor._torch()
    assert (check.level, check.fix) == ("ok", "")
    assert check.seen.endswith(", 1 thread")
    monkeypatch.delenv(variable)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 4)
    (check,) = doctor._torch()
    assert check.seen.endswith(", 4 threads")


def test_doctor_finds_old_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    versions = {"torch": "2.1.0+cpu", "numpy": "1.26.4"}
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["torch>=2.4", "numpy>=1.26", 'pytest>=8; extra == "dev"'])
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: versions[name])
    found = {check.name: check for check in doctor._packages()}
    assert found["torch"].level == "fail"
    assert "2.4" in found["torch"].seen
    assert "torch>=2.4" in found["torch"].fix
    assert found["packages"].seen == "numpy 1.26.4"


def test_doctor_finds_missing_packages(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.metadata, "requires", lambda name: ["no-such-package-at-all>=1"])
    found = list(doctor._packages())
    assert found[0].level == "fail"
    assert found[0].seen == "missing"


def test_doctor_without_bf16(monkeypatch: pytest.MonkeyPatch) -> None:
    import frustum.engine.runtime as runtime

    monkeypatch.setattr(runtime, "computes_bf16", lambda device: False)
    (check,) = doctor._cpu()
    assert check.level == "note"
    assert "float32" in check.fix


@pytest.mark.parametrize(
    ("works", "version", "level", "words"),
    [
        (True, "3.7.1", "ok", ("numba on the CPU, triton 3.7.1 on the GPU", "")),
        (False, "3.7.1", "note", ("plain torch on the GPU. no C compiler", "gcc")),
        (False, None, "note", ("triton is not installed", ".[cuda]")),
    ],
)
def test_doctor_names_the_pooling_backend(works, version, level, words, monkeypatch: pytest.MonkeyPatch) -> None:
    import warnings

    import torch

    from frustum.ops import bev_pool

    def tried(device: torch.device) -> bool:
        if version and not works:
            warnings.warn("no C compiler", stacklevel=1)
        return works

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "current_device", lambda: 0)
    monkeypatch.setattr(bev_pool, "_triton_works", tried)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: version)
    (check,) = doctor._bev_pool()
    assert check.level == level
    assert words[0] in check.seen
    assert words[1] in check.fix


@pytest.mark.parametrize(
    ("on_gpu", "version", "level", "words"),
    [
        (False, None, "ok", ("numba on the CPU", "")),
        (False, "1.5.3", "ok", ("gsplat 1.5.3 is installed", "")),
        (True, None, "note", ("plain torch on the GPU, which is slow", ".[cuda]")),
        (True, "1.5.3", "ok", ("gsplat 1.5.3 on the GPU", "")),
    ],
)
def test_doctor_names_what_renders_gaussians(on_gpu, version, level, words, monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: on_gpu)
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: version)
    monkeypatch.setattr(doctor.importlib.metadata, "version", lambda name: version)
    (check,) = doctor._splat()
    assert check.level == level
    assert words[0] in check.seen
    assert words[1] in check.fix


def test_doctor_on_a_broken_torchvision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doctor.importlib.util, "find_spec", lambda name: object())

    def broken(name: str) -> None:
        raise RuntimeError("operator torchvision::nms does not exist")

    monkeypatch.setattr(doctor.importlib, "import_module", broken)
    (check,) = doctor._torchvision()
    assert "nms" in check.seen
    assert "uninstall" in check.fix


def test_doctor_looks_at_the_nearest_folder_that_exists(tmp_path: Path) -> None:
    assert str(tmp_path) in doctor._disk(tmp_path / "a" / "b").seen


def test_list(frustum: Run, tmp_path: Path) -> None:
    code, out, _ = frustum("list", "--json", tmp_path / "recipes.json")
    found = json.loads((tmp_path / "recipes.json").read_text())
    assert code == 0
    assert {"flashocc-r50", "flashocc-r50-m0", "flashocc-tiny"} <= set(found)
    assert all(found.values()), "every recipe has a line of help"
    assert all(name in out for name in found)


def test_settings_can_be_typed_back(frustum: Run, tmp_path: Path) -> None:
    """What --settings prints are overrides that change nothing."""
    from frustum.engine import overrides
    from frustum.recipes.finding import get_recipe

    code, out, _ = frustum("list", "--settings", "flashocc-r50-m0", "--json", tmp_path / "settings.json")
    assert code == 0
    assert "optim.lr=0.0001" in out
    recipe = get_recipe("flashocc-r50-m0")
    settings = json.loads((tmp_path / "settings.json").read_text())
    words = [f"{k}={v if isinstance(v, str) else json.dumps(v)}" for k, v in settings.items() if k != "published"]
    assert overrides.apply(recipe, words) == recipe
