"""Prepares the digits example: two trained models, the baseline sample and a request for curl.

The data are scikit-learn's bundled scans of handwritten digits: 1 797 real images of 8x8 pixels, grey values 0 to 16,
no download. The split and the seeds are fixed, so every run writes the same models.

Not here: serving them (``headgate serve examples/digits/digits.yaml``).
Read next: ``digits.yaml``, the document that says how the two share the traffic.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from skl2onnx import convert_sklearn
from skl2onnx.common.data_types import FloatTensorType
from sklearn.datasets import load_digits
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

SEED = 20_260
HERE = Path(__file__).resolve().parent


def split() -> tuple[Any, Any, Any, Any]:
    """Training images, test images [rows, 64] float32 and their labels [rows] int64, always the same ones."""
    images, labels = load_digits(return_X_y=True)
    train_x, test_x, train_y, test_y = train_test_split(
        images.astype(np.float32), labels.astype(np.int64), test_size=0.25, random_state=SEED, stratify=labels
    )
    return train_x, test_x, train_y, test_y


def classifiers() -> dict[str, Any]:
    """The untrained classifiers by version: a linear one, and a small neural network that is to replace it."""
    return {
        "1": make_pipeline(StandardScaler(), LogisticRegression(C=0.1, max_iter=1000, random_state=SEED)),
        "2": make_pipeline(
            StandardScaler(), MLPClassifier(hidden_layer_sizes=(64,), max_iter=300, random_state=SEED)
        ),
    }


def to_onnx(classifier: Any) -> onnx.ModelProto:
    """The classifier as an ONNX model of plain tensors: X [rows, 64] -> label [rows], probabilities [rows, 10].

    ``zipmap=False`` keeps the probabilities a tensor; with ZipMap they would be a sequence of maps in the
    file. Headgate serves the tensor either way; other programs that read the file do not.
    """
    model: onnx.ModelProto = convert_sklearn(
        classifier,
        name="digits",
        initial_types=[("X", FloatTensorType([None, 64]))],
        options={id(classifier): {"zipmap": False}},
        target_opset={"": 17, "ai.onnx.ml": 3},
    )
    shapes: dict[str, list[str | int]] = {"X": ["rows", 64], "label": ["rows"], "probabilities": ["rows", 10]}
    for value in [*model.graph.input, *model.graph.output]:
        name_dimensions(value, shapes[value.name])
    onnx.checker.check_model(model)
    return model


def name_dimensions(value: onnx.ValueInfoProto, shape: list[str | int]) -> None:
    """Writes the shape of one input or output; a string is a dimension of any size under that name."""
    dims = value.type.tensor_type.shape
    dims.ClearField("dim")
    for size in shape:
        dim = dims.dim.add()
        if isinstance(size, str):
            dim.dim_param = size
        else:
            dim.dim_value = size


def request(image: Any) -> str:
    """The body of an inference request for one image [64], as committed in ``request.json``."""
    tensor = {"name": "X", "shape": [1, 64], "datatype": "FP32", "data": [int(pixel) for pixel in image]}
    return json.dumps({"inputs": [tensor]}, separators=(", ", ": ")) + "\n"


def prepare(folder: Path) -> None:
    """Writes ``models/digits/{1,2}/model.onnx``, ``baseline/digits.npz`` and ``request.json`` below ``folder``."""
    train_x, test_x, train_y, test_y = split()
    for version, classifier in classifiers().items():
        classifier.fit(train_x, train_y)
        path = folder / "models" / "digits" / version / "model.onnx"
        path.parent.mkdir(parents=True, exist_ok=True)
        replace(path, to_onnx(classifier).SerializeToString(deterministic=True))
        print(
            f"digits {version}: {classifier.score(test_x, test_y):.1%} of {len(test_y)} unseen images right"
        )
    baseline = folder / "baseline" / "digits.npz"
    baseline.parent.mkdir(parents=True, exist_ok=True)
    fresh = baseline.with_name("digits.new.npz")
    np.savez(fresh, X=train_x)
    fresh.replace(baseline)
    print(f"baseline: {len(train_x)} training images")
    replace(folder / "request.json", request(test_x[0]).encode())


def replace(path: Path, content: bytes) -> None:
    """Writes a file so that a reader sees the old or the new one, and leaves it alone when it is the same."""
    if path.exists() and path.read_bytes() == content:
        return
    fresh = path.with_name(path.name + ".new")
    fresh.write_bytes(content)
    fresh.replace(path)


def main() -> None:
    """The command line: ``python prepare.py [--out FOLDER]``."""
    parser = argparse.ArgumentParser(description="Trains the digits example and writes its files.")
    parser.add_argument("--out", type=Path, default=HERE, help="where to write (default: beside this script)")
    prepare(parser.parse_args().out)


if __name__ == "__main__":
    main()
