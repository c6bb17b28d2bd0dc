"""Malformed JSON bodies: syntax, the envelope, the inputs, the numbers. All get 400 ``invalid_argument``.

Read next: ``cases_binary``.
"""

from __future__ import annotations

from typing import Any

from conformance.cases import GOOD, Case, a_input, b_input, encode, request

WHOLE = GOOD.decode()


def syntax() -> list[Case]:
    """Bodies that are not one JSON object."""
    nested = '{"inputs":' + "[" * 5000 + "]" * 5000 + "}"
    bodies: dict[str, bytes] = {
        "empty-body": b"",
        "only-space": b"  \r\n\t ",
        "words": b"hello",
        "array": b"[]",
        "string": b'"inputs"',
        "number": b"12",
        "null": b"null",
        "true": b"true",
        "open-brace": b"{",
        "cut-in-key": b'{"inp',
        "cut-in-data": GOOD[: GOOD.rindex(b"[3]") + 1],
        "cut-before-last-brace": GOOD[:-1],
        "text-after": GOOD + b" x",
        "two-documents": GOOD + GOOD,
        "brace-after": GOOD + b"}",
        "comma-after-last-member": WHOLE.replace("]}]}", "]}],}").encode(),
        "comma-after-last-element": WHOLE.replace("[1, 2]", "[1, 2,]").encode(),
        "comma-before-first": WHOLE.replace("[1, 2]", "[, 1, 2]").encode(),
        "two-commas": WHOLE.replace("[1, 2]", "[1,, 2]").encode(),
        "no-comma": WHOLE.replace("[1, 2]", "[1 2]").encode(),
        "no-colon": WHOLE.replace('"inputs":', '"inputs"').encode(),
        "single-quotes": WHOLE.replace('"', "'").encode(),
        "bare-keys": WHOLE.replace('"inputs"', "inputs").encode(),
        "comment": b"/* a */" + GOOD,
        "byte-order-mark": b"\xef\xbb\xbf" + GOOD,
        "utf-16": WHOLE.encode("utf-16"),
        "wrong-bracket": WHOLE.replace("[1, 2]", "[1, 2}").encode(),
        "very-deep": nested.encode(),
        "nul-byte": GOOD.replace(b"{", b"{\x00", 1),
        "bad-utf-8-in-name": GOOD.replace(b'"A"', b'"\xff\xfe"'),
        "raw-newline-in-string": GOOD.replace(b'"A"', b'"A\n"'),
        "bad-escape": GOOD.replace(b'"A"', b'"\\x41"'),
        "short-unicode-escape": GOOD.replace(b'"A"', b'"\\u41"'),
        "lone-surrogate": GOOD.replace(b'"A"', b'"\\ud800"'),
        "unclosed-string": GOOD.replace(b'"A"', b'"A'),
    }
    return [Case(f"json-{name}", body) for name, body in bodies.items()]


def envelope() -> list[Case]:
    """JSON objects whose members are missing, of the wrong kind or unknown to the model."""
    bodies: dict[str, Any] = {
        "no-inputs": {},
        "inputs-null": request(inputs=None),
        "inputs-object": request(inputs={}),
        "inputs-string": request(inputs="A"),
        "inputs-empty": request(inputs=[]),
        "input-null": request(inputs=[None, b_input()]),
        "input-number": request(inputs=[1, b_input()]),
        "input-array": request(inputs=[[], b_input()]),
        "id-number": request(id=7),
        "id-object": request(id={}),
        "id-array": request(id=["a"]),
        "parameters-array": request(parameters=[]),
        "parameters-string": request(parameters="a"),
        "parameter-object": request(parameters={"a": {}}),
        "parameter-array": request(parameters={"a": [1]}),
        "outputs-object": request(outputs={}),
        "outputs-string": request(outputs="A2"),
        "output-number": request(outputs=[1]),
        "output-nameless": request(outputs=[{}]),
        "output-name-number": request(outputs=[{"name": 1}]),
        "output-unknown": request(outputs=[{"name": "C"}]),
        "output-binary-string": request(outputs=[{"name": "A2", "parameters": {"binary_data": "yes"}}]),
        "binary-output-string": request(parameters={"binary_data_output": "yes"}),
        "binary-output-number": request(parameters={"binary_data_output": 1}),
    }
    return [Case(f"envelope-{name}", encode(body)) for name, body in bodies.items()]


def inputs() -> list[Case]:
    """Inputs that do not fit the model; the message names the input."""
    changes: dict[str, dict[str, Any]] = {
        "no-datatype": {"datatype": ...},
        "datatype-null": {"datatype": None},
        "datatype-number": {"datatype": 1},
        "datatype-unknown": {"datatype": "FLOAT"},
        "datatype-lower-case": {"datatype": "fp32"},
        "datatype-other": {"datatype": "FP64"},
        "datatype-bytes": {"datatype": "BYTES"},
        "no-shape": {"shape": ...},
        "shape-null": {"shape": None},
        "shape-number": {"shape": 2},
        "shape-string": {"shape": "1,2"},
        "shape-of-strings": {"shape": ["1", "2"]},
        "shape-of-floats": {"shape": [1.0, 2]},
        "shape-of-booleans": {"shape": [True, 2]},
        "shape-nested": {"shape": [[1, 2]]},
        "shape-negative": {"shape": [-1, 2]},
        "shape-beyond-64-bit": {"shape": [2**63, 2]},
        "shape-count-beyond-64-bit": {"shape": [2**62, 2]},
        "shape-claims-more": {"shape": [10**12, 2]},
        "shape-rank-17": {"shape": [1] * 16 + [2]},
        "rank-one": {"shape": [2]},
        "rank-three": {"shape": [1, 1, 2]},
        "rank-zero": {"shape": []},
        "wrong-dimension": {"shape": [2, 1]},
        "no-data": {"data": ...},
        "data-null": {"data": None},
        "data-string": {"data": "12"},
        "data-number": {"data": 1},
        "data-object": {"data": {}},
        "too-few": {"data": [1]},
        "too-many": {"data": [1, 2, 3]},
        "none": {"data": []},
        "nested-too-few": {"data": [[1]]},
        "element-null": {"data": [1, None]},
        "element-string": {"data": [1, "2"]},
        "element-boolean": {"data": [1, True]},
        "element-object": {"data": [1, {}]},
        "parameters-number": {"parameters": 1},
        "data-and-binary": {"parameters": {"binary_data_size": 8}},
        "binary-without-header": {"data": ..., "parameters": {"binary_data_size": 8}},
    }
    cases = [
        Case(f"input-{name}", encode(request(inputs=[a_input(**change), b_input()])), mentions='"A"')
        for name, change in changes.items()
    ]
    whole = {
        "nameless": [a_input(name=...), b_input()],
        "name-null": [a_input(name=None), b_input()],
        "name-number": [a_input(name=1), b_input()],
        "name-unknown": [a_input(name="Z"), b_input()],
        "name-other-case": [a_input(name="a"), b_input()],
        "missing": [a_input()],
        "twice": [a_input(), a_input(), b_input()],
        "one-too-many": [a_input(), b_input(), a_input(name="C")],
    }
    return cases + [Case(f"inputs-{name}", encode(request(inputs=body))) for name, body in whole.items()]


#: Numbers that JSON does not know, or that do not fit the datatype: endpoint, data as written.
NUMBERS: list[tuple[str, str]] = [
    *[
        ("fp32", text)
        for text in (
            "NaN", "Infinity", "-Infinity", "nan", "0x10", "01", "-01", "+1", "1.", ".5", "-", "--1", "1e", "1e+",
            "1.e3", "1_000", "1,5", "1e400", "True", "'1'",
        )
    ],
    *[("int64", text) for text in ("1.5", "1.0", "1e3", "9223372036854775808", "-9223372036854775809", '"1"', "true")],
    *[("uint64", text) for text in ("18446744073709551616", "-1", "1e19")],
    *[("int32", text) for text in ("2147483648", "-2147483649")],
    *[("uint32", text) for text in ("4294967296", "-1")],
    *[("int16", text) for text in ("32768", "-32769")],
    *[("uint16", text) for text in ("65536", "-1")],
    *[("int8", text) for text in ("128", "-129")],
    *[("uint8", text) for text in ("256", "300", "-1")],
    *[("bool", text) for text in ("1", "0", '"true"', "TRUE", "null")],
    *[("bytes", text) for text in ("1", "null", "true", '"\\ud800"', '["a"')],
    ("fp16", "65520"),
    ("fp16", "true"),
]  # fmt: skip


def numbers() -> list[Case]:
    """One element of each identity endpoint, written wrongly; the message names the input."""
    cases = []
    for place, (datatype, text) in enumerate(NUMBERS):
        body = f'{{"inputs":[{{"name":"x","shape":[1],"datatype":"{datatype.upper()}","data":[{text}]}}]}}'
        path = f"/v2/models/identity-{datatype}/infer"
        cases.append(Case(f"number-{place:02}-{datatype}-{text}", body.encode(), path))
    return cases


CASES = [*syntax(), *envelope(), *inputs(), *numbers()]
