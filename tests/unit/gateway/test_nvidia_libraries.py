"""The order and the places in which NVIDIA's libraries are found, in folders laid out as the wheels lay them out."""

from __future__ import annotations

from pathlib import Path

from headgate import nvidia_libraries


def lay_out(site: Path, *names: str) -> None:
    for name in names:
        path = site / "nvidia" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def test_each_library_comes_after_those_that_it_needs(tmp_path: Path) -> None:
    lay_out(
        tmp_path,
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
    found = [path.name for path in nvidia_libraries.find([str(tmp_path)])]
    assert found == [
        "libcudart.so.12",
        "libcublasLt.so.12",
        "libcublas.so.12",
        "libcufft.so.11",
        "libcudnn.so.9",
    ]


def test_the_folder_of_cuda_13_is_one_for_all(tmp_path: Path) -> None:
    lay_out(tmp_path, "cu13/lib/libcublas.so.13", "cu13/lib/libcudart.so.13", "cudnn/lib/libcudnn.so.9")
    found = nvidia_libraries.find([str(tmp_path)])
    assert [path.parent.parent.name for path in found] == ["cu13", "cu13", "cudnn"]
    assert all(path.is_file() for path in found)


def test_of_two_cudas_the_newer_one_is_taken_whole(tmp_path: Path) -> None:
    lay_out(tmp_path, *(f"cu13/lib/lib{name}" for name in ("cublas.so.13", "cudart.so.13", "curand.so.10")))
    lay_out(
        tmp_path,
        "cublas/lib/libcublas.so.12",
        "cuda_runtime/lib/libcudart.so.12",
        "curand/lib/libcurand.so.10",
    )
    found = nvidia_libraries.find([str(tmp_path)])
    assert {path.parent.parent.name for path in found} == {"cu13"}


def test_without_such_wheels_there_is_nothing(tmp_path: Path) -> None:
    assert nvidia_libraries.find([str(tmp_path)]) == []
    assert isinstance(nvidia_libraries.find(), list)
