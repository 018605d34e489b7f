"""Windows over two spatial dimensions, for tests of what convolves or pools.

Each is: sizes of the input, of the window, strides, padding, dilations.
"""

from __future__ import annotations

from typing import Any

GEOMETRIES: dict[str, Any] = {
    "plain": ((9, 8), (2, 3), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "stride 2, padded unevenly": ((9, 8), (3, 3), (2, 2), ((0, 1), (1, 0)), (1, 1)),
    "dilated": ((11, 12), (3, 2), (1, 1), ((2, 2), (1, 0)), (2, 3)),
    "as large as the input": ((5, 4), (5, 4), (1, 1), ((0, 0), (0, 0)), (1, 1)),
    "strides that leave a rest": ((8, 9), (2, 3), (3, 4), ((0, 0), (0, 0)), (1, 1)),
    "a border cut off": ((9, 9), (3, 3), (1, 2), ((-1, 0), (-2, 1)), (1, 1)),
    "one place": ((6, 7), (1, 1), (2, 3), ((0, 0), (0, 0)), (1, 1)),
}


def output_sizes(geometry: Any) -> list[int]:
    return [
        (size + sum(pads) - (places - 1) * dilation - 1) // stride + 1
        for size, places, stride, pads, dilation in zip(*geometry, strict=True)
    ]
