"""Graphs without weights of their own: they refer to those of a safetensors file next to them."""

import json
from pathlib import Path
from typing import NamedTuple

from onnxscript import ir, optimizer

# Elements of a constant that is kept in a graph; larger ones are computed when a session starts.
MAX_CONSTANT = 256
DTYPES = {"F16": ir.DataType.FLOAT16, "F32": ir.DataType.FLOAT}


class Place(NamedTuple):
    """The place of a tensor in a safetensors file, in C order, little-endian.

    Attributes:
        dtype: "F16" or "F32".
        offset: of its first byte in the file.
        num_bytes: of the tensor.
    """

    dtype: str
    shape: list[int]
    offset: int
    num_bytes: int


def tensor_places(weights: Path) -> dict[str, Place]:
    """The places of all tensors of a safetensors file, by name."""
    with weights.open("rb") as file:
        start = 8 + int.from_bytes(file.read(8), "little")
        header = json.loads(file.read(start - 8))
    header.pop("__metadata__", None)
    return {
        name: Place(each["dtype"], each["shape"], start + begin, end - begin)
        for name, each in header.items()
        for begin, end in [each["data_offsets"]]
    }


def refer_to_weights(model: ir.Model, prefix: str, weights: Path) -> None:
    """Optimizes a graph, and lets it take its weights from a file in its folder.

    What a graph computes from its weights alone stays in it: onnxruntime computes it once, when a
    session starts.

    Args:
        model: of one graph, changed in place.
        prefix: of the names of weights in the graph, before those in the file.
        weights: the safetensors file.
    """
    graph, values = model.graph, {}
    num_inputs = len(graph.inputs)
    for name, value in list(graph.initializers.items()):
        if name.startswith(prefix):
            values[name.removeprefix(prefix)] = value
            del graph.initializers[name]
            value.const_value = None
            graph.inputs.append(value)  # for inputs cannot be folded
    optimizer.optimize(model, output_size_limit=MAX_CONSTANT)
    del graph.inputs[num_inputs:]
    places, first = tensor_places(weights), graph[0]
    for name, value in values.items():
        if not value.uses():
            continue
        stored = _external_value(name, places[name], weights)
        graph.initializers[name] = stored
        value.name = f"{name}.float32"
        cast = [ir.AttrInt64("to", ir.DataType.FLOAT)]
        graph.insert_before(first, ir.Node("", "Cast", [stored], cast, outputs=[value]))
    _strip(model)


def _external_value(name: str, place: Place, weights: Path) -> ir.Value:
    dtype, shape = DTYPES[place.dtype], ir.Shape(place.shape)
    where = weights.name, place.offset, place.num_bytes, dtype
    tensor = ir.ExternalTensor(*where, shape=shape, name=name, base_dir=weights.parent)
    return ir.Value(name=name, shape=shape, type=ir.TensorType(dtype), const_value=tensor)


def _strip(model: ir.Model) -> None:
    """Removes what a runtime does not need: where each node comes from, and inner shapes."""
    ir.passes.common.ClearMetadataAndDocStringPass()(model)
    for graph in model.graphs():
        for node in graph:
            for value in node.outputs:
                if not value.is_graph_output():
                    value.shape = value.type = None
