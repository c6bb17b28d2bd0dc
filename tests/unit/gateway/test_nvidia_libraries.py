"""Which of NVIDIA's libraries are found, where and in which order, in folders laid out as the wheels lay them out."""

from __future__ import annotations

import random
import subprocess
from pathlib import Path

import pytest

from headgate import nvidia_libraries
from support.elf import library_that_needs
from support.tools import need_program

CUDA_13 = (
    "libcublasLt.so.13",
    "libcublas.so.13",
    "libcurand.so.10",
    "libcudart.so.13",
    "libcuda.so.1",
    "libc.so.6",
)
CUDA_12 = ("libcublasLt.so.12", "libcublas.so.12", "libcurand.so.10", "libcudart.so.12", "libcudnn.so.9")


def lay_out(folder: Path, *names: str) -> None:
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def provider(site: Path, *needed: str) -> Path:
    return library_that_needs(site / "onnxruntime" / "capi" / nvidia_libraries.PROVIDER, *needed)


def find(site: Path, *system: Path) -> list[str]:
    found = nvidia_libraries.find([str(site)], system)
    return [str(path.relative_to(site)) for path in found]


def test_each_library_comes_after_those_that_it_needs(tmp_path: Path) -> None:
    provider(tmp_path, *CUDA_12)
    lay_out(
        tmp_path / "nvidia",
        "cublas/lib/libcublas.so.12",
        "cublas/lib/libcublasLt.so.12",
        "cuda_runtime/lib/libcudart.so.12",
        "cudnn/lib/libcudnn.so.9",
        "cudnn/lib/libcudnn_graph.so.9",
        "cufft/lib/libcufft.so.11",
        "cufft/lib/libcufftw.so.11",
        "nccl/lib/libnccl.so.2",
        "curand/include/curand.h",
    )
    found = [Path(path).name for path in find(tmp_path)]
    assert found == [
        "libcudart.so.12",
        "libcublasLt.so.12",
        "libcublas.so.12",
        "libcufft.so.11",
        "libcudnn.so.9",
    ]


def test_the_folder_of_cuda_13_is_one_for_all(tmp_path: Path) -> None:
    provider(tmp_path, *CUDA_13)
    lay_out(
        tmp_path / "nvidia", "cu13/lib/libcublas.so.13", "cu13/lib/libcudart.so.13", "cudnn/lib/libcudnn.so.9"
    )
    assert find(tmp_path) == [
        "nvidia/cu13/lib/libcudart.so.13",
        "nvidia/cu13/lib/libcublas.so.13",
        "nvidia/cudnn/lib/libcudnn.so.9",
    ]


@pytest.mark.parametrize(
    ("needed", "folders"), [(CUDA_13, {"cu13"}), (CUDA_12, {"cublas", "cuda_runtime", "curand"})]
)
def test_of_two_cudas_the_one_that_the_provider_needs_is_taken_whole(
    tmp_path: Path, needed: tuple[str, ...], folders: set[str]
) -> None:
    provider(tmp_path, *needed)
    lay_out(
        tmp_path / "nvidia",
        *(f"cu13/lib/lib{name}" for name in ("cublas.so.13", "cudart.so.13", "curand.so.10")),
        "cublas/lib/libcublas.so.12",
        "cuda_runtime/lib/libcudart.so.12",
        "curand/lib/libcurand.so.10",
    )
    assert {Path(path).parts[1] for path in find(tmp_path)} == folders


def test_another_cuda_than_the_provider_needs_is_left_alone(tmp_path: Path) -> None:
    provider(tmp_path, *CUDA_13)
    lay_out(tmp_path / "nvidia", "cublas/lib/libcublas.so.12", "cuda_runtime/lib/libcudart.so.12")
    assert find(tmp_path) == []


def test_what_the_wheels_lack_comes_from_the_machines_folders_in_their_order(tmp_path: Path) -> None:
    provider(tmp_path, *CUDA_13)
    lay_out(tmp_path / "nvidia", "cu13/lib/libcudart.so.13")
    first, second = tmp_path / "first", tmp_path / "second"
    lay_out(first, "libcudart.so.13", "libcublas.so.13")
    lay_out(second, "libcublas.so.13", "libcublasLt.so.13", "libcudnn.so.9", "libcudnn.so.8")
    assert find(tmp_path, first, second) == [
        "nvidia/cu13/lib/libcudart.so.13",
        "second/libcublasLt.so.13",
        "first/libcublas.so.13",
        "second/libcudnn.so.9",
    ]


def test_a_provider_that_cannot_be_read_gets_the_newest(tmp_path: Path) -> None:
    lay_out(tmp_path / "onnxruntime" / "capi", nvidia_libraries.PROVIDER)
    lay_out(tmp_path / "nvidia", "cu13/lib/libcudart.so.13", "cuda_runtime/lib/libcudart.so.12")
    lay_out(tmp_path / "nvidia", "cudnn/lib/libcudnn.so.9", "cudnn/lib/libcudnn.so.10")
    assert find(tmp_path) == ["nvidia/cu13/lib/libcudart.so.13", "nvidia/cudnn/lib/libcudnn.so.10"]


def test_a_later_cuda_is_asked_for_as_the_provider_names_it(tmp_path: Path) -> None:
    library = provider(tmp_path, "libcudart.so.14", "libcublas.so.14")
    wanted = nvidia_libraries.wanted(library)
    assert (wanted["cudart"], wanted["cublas"], wanted["cudnn"]) == (14, 14, None)


def test_without_a_provider_there_is_nothing(tmp_path: Path) -> None:
    lay_out(tmp_path / "nvidia", "cu13/lib/libcudart.so.13")
    assert find(tmp_path) == []
    assert isinstance(nvidia_libraries.find(), list)


def test_what_somebody_wrote_is_looked_at_before_where_installers_put_it() -> None:
    variables = {"LD_LIBRARY_PATH": "/own:", "CUDA_HOME": "/opt/cuda", "CUDA_PATH": ""}
    folders = [str(path) for path in nvidia_libraries.system_folders(variables, 13)]
    assert folders[:2] == ["/own", "/opt/cuda/lib64"]
    assert folders.index("/opt/cuda/lib64") < folders.index("/usr/local/cuda/lib64") < len(folders) - 1
    assert folders[-1].startswith("/usr/lib/")
    assert "." not in folders


def test_the_needed_names_are_those_of_readelf() -> None:
    need_program("readelf", "binutils")
    program = Path("/bin/sh").resolve()
    said = subprocess.run(["readelf", "-d", program], capture_output=True, text=True, check=True).stdout
    names = [line.partition("[")[2].rstrip("]") for line in said.splitlines() if "(NEEDED)" in line]
    assert nvidia_libraries.needed(program) == names
    assert names


def test_a_damaged_file_needs_nothing_or_something_but_never_fails(tmp_path: Path) -> None:
    whole = library_that_needs(tmp_path / "whole.so", *CUDA_13).read_bytes()
    assert nvidia_libraries.needed(tmp_path / "whole.so") == list(CUDA_13)
    chance, path = random.Random(7), tmp_path / "damaged.so"
    for _ in range(500):
        damaged = bytearray(whole[: chance.randrange(len(whole)) if chance.random() < 0.3 else None])
        for _ in range(3):
            if damaged:
                damaged[chance.randrange(len(damaged))] = chance.randrange(256)
        path.write_bytes(damaged)
        assert isinstance(nvidia_libraries.needed(path), list)
    assert nvidia_libraries.needed(tmp_path / "nowhere.so") == []
