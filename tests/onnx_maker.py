"""Small ONNX files, written field by field: no package is needed to make them."""

FLOAT, UINT8, INT64 = 1, 2, 7


def field(number, value):
    """One field of protobuf's wire format: a whole number, or bytes with their length."""
    if isinstance(value, int):
        return varint(number << 3) + varint(value)
    value = value.encode() if isinstance(value, str) else value
    return varint(number << 3 | 2) + varint(len(value)) + value


def varint(value):
    parts = []
    while value > 0x7F:
        parts.append(value & 0x7F | 0x80)
        value >>= 7
    return bytes([*parts, value])


def value_info(name, kind, shape):
    sides = [field(1, side) if isinstance(side, int) else field(2, side) for side in shape]
    tensor = field(1, kind) + field(2, b"".join(field(1, side) for side in sides))
    return field(1, name) + field(2, field(1, tensor))


def node(kind, inputs, outputs, **attributes):
    """An operation; attributes are whole numbers or lists of them."""
    parts = [field(1, name) for name in inputs] + [field(2, name) for name in outputs] + [field(4, kind)]
    for name, value in attributes.items():
        if isinstance(value, list):
            numbers = b"".join(field(8, number) for number in value)
            parts.append(field(5, field(1, name) + numbers + field(20, 7)))
        else:
            parts.append(field(5, field(1, name) + field(3, value) + field(20, 2)))
    return b"".join(parts)


def tensor(name, array, elsewhere=None):
    """A constant, in the file or in another one."""
    kind = {"f": FLOAT, "i": INT64}[array.dtype.kind]
    parts = [field(1, side) for side in array.shape] + [field(2, kind), field(8, name)]
    if elsewhere is None:
        parts.append(field(9, array.tobytes()))
    else:
        entry = field(1, "location") + field(2, elsewhere)
        parts += [field(13, entry), field(14, 1)]
    return b"".join(parts)


def model(nodes, inputs, outputs, tensors=()):
    graph = [field(1, one) for one in nodes] + [field(2, "g")] + [field(5, one) for one in tensors]
    graph += [field(11, one) for one in inputs] + [field(12, one) for one in outputs]
    return field(1, 8) + field(8, field(1, "") + field(2, 17)) + field(7, b"".join(graph))


def image_encoder(shape=("batch", 3, 8, 8), kind=FLOAT, weights=None, elsewhere=None, nodes=None):
    """An encoder of images: the mean of each channel, times a matrix `(3, D)`."""
    import numpy as np

    weights = np.arange(12, dtype=np.float32).reshape(3, 4) if weights is None else weights
    axes = [1, 2] if shape[-1] == 3 else [2, 3]
    steps = [node("Cast", ["x"], ["f"], to=FLOAT)]
    steps += [node("ReduceMean", ["f"], ["m"], axes=axes, keepdims=0), node("MatMul", ["m", "w"], ["y"])]
    return model(
        nodes or steps,
        [value_info("x", kind, shape)],
        [value_info("y", FLOAT, (shape[0], weights.shape[1]))],
        [tensor("w", weights, elsewhere)],
    )


def text_encoder(words, names=("input_ids", "attention_mask"), length="length"):
    """An encoder of texts: a vector `(words, 4)` for each token."""
    import numpy as np

    table = np.random.default_rng(0).normal(size=(words, 4)).astype(np.float32)
    return model(
        [node("Gather", ["w", names[0]], ["y"])],
        [value_info(name, INT64, ("batch", length)) for name in names],
        [value_info("y", FLOAT, ("batch", length, 4))],
        [tensor("w", table)],
    ), table
