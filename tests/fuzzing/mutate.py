"""Changes to bytes and JSON values that break parsers."""

import copy
import json

_NUMBERS = (
    0,
    1,
    7,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    2**63 - 1,
    2**64 - 1,
)
_TOKENS = (
    b"", b"\x00", b"\n", b"\r\n", b",", b'"', b"nan", b"inf", b"-1", b"1e999", b"{}", b"[]", b"null",
    b"\xff\xfe", b"\xef\xbb\xbf", b"../", b"\x1b[31m", b"<script>", b"O8", b"|O", b"(99999999999,)",
    b"(-1, 3)", b"cos\nsystem\n",
)  # fmt: skip
_VALUES = (
    None, True, False, 0, 1, -1, 2**63, 10**400, 1e308, -0.0, float("nan"), float("inf"), "", "x", "\x00",
    "nan", "\ud800", "../../x", "<script>", [], {}, [[]], [None], {"": None}, [1, "a", None],
    "classification", "regression", "multilabel", "contrastive",
)  # fmt: skip


def mutate_bytes(random, content, others):
    """Return content after one to four changes."""
    content = bytearray(content)
    for _ in range(random.choice((1, 1, 2, 4))):
        content = random.choice(_CHANGES)(random, content, others)
    return bytes(content)


def _place(random, content):
    return random.randrange(len(content) + 1)


def _flip(random, content, others):
    if content:
        content[random.randrange(len(content))] ^= 1 << random.randrange(8)
    return content


def _set(random, content, others):
    if content:
        content[random.randrange(len(content))] = random.choice(
            (0, 1, 0x7F, 0x80, 0xFF, random.randrange(256))
        )
    return content


def _number(random, content, others):
    size = random.choice((1, 2, 4, 8))
    value = random.choice(_NUMBERS) % (1 << (8 * size))
    place = _place(random, content)
    content[place : place + size] = value.to_bytes(size, random.choice(("little", "big")))
    return content


def _token(random, content, others):
    place = _place(random, content)
    content[place : place + random.choice((0, 0, 1, 3))] = random.choice(_TOKENS)
    return content


def _cut(random, content, others):
    return content[: _place(random, content)]


def _delete(random, content, others):
    place = _place(random, content)
    del content[place : place + random.choice((1, 2, 8, 64))]
    return content


def _repeat(random, content, others):
    start = _place(random, content)
    part = content[start : start + random.choice((1, 4, 32))]
    content[start:start] = part * random.choice((1, 2, 30))
    return content


def _splice(random, content, others):
    other = random.choice(others)
    return content[: _place(random, content)] + other[_place(random, other) :]


_CHANGES = (_flip, _set, _set, _number, _token, _cut, _delete, _repeat, _splice)


def mutate_json(random, content, others):
    """Return JSON with some values, keys or lengths changed; now and then with broken text."""
    if random.random() < 0.15:
        return mutate_bytes(random, content, others)
    try:
        root = [json.loads(content)]
    except ValueError:
        return mutate_bytes(random, content, others)
    for _ in range(random.choice((1, 1, 2, 4))):
        _change_value(random, root)
    return json.dumps(root[0]).encode()


def _change_value(random, root):
    holder, key = _pick(random, root)
    kind = random.randrange(6)
    if kind == 0:
        del holder[key]
        if holder is root:
            root.append(None)
    elif kind == 1 and isinstance(holder, dict):
        holder[random.choice(("x", "", "task", "classes", "data"))] = holder.pop(key)
    elif kind == 2 and isinstance(holder, list) and holder is not root:
        holder.insert(0, copy.deepcopy(holder[key]))
    elif kind == 3:
        holder[key] = [copy.deepcopy(holder[key])]
    else:
        holder[key] = copy.deepcopy(random.choice(_VALUES))


def _pick(random, root):
    """Return a random place in nested lists and dicts, deep ones as likely as shallow ones."""
    places = []

    def walk(holder):
        for key in range(len(holder)) if isinstance(holder, list) else list(holder):
            places.append((holder, key))
            if isinstance(holder[key], list | dict):
                walk(holder[key])

    walk(root)
    return random.choice(places)
