"""Values with numpy arrays as bytes, for client and worker alike: docs/payloads.md, first byte N.

Arrays travel as they lie in memory, so that a reader in another language finds them without Python;
everything else that is no plain value goes in one pickle beside them. Standard library only; numpy
is used where it is loaded already, and loaded where a value with arrays arrives.
"""

import importlib
import json
import math
import pickle
import struct
import sys

_PROTOCOL = 5
_ALIGNMENT = 16
_FIXED = struct.Struct("<c3xI")
_NATIVE_KINDS = "biufcSUMm"
_INLINE_SCALARS = "biuf"
_COLUMN_KINDS = "biufcMm"  # of a pandas frame
_NODES_MAX = 100000  # a larger tree is quicker pickled
_DEPTH_MAX = 100
_PLAIN = frozenset((int, float, bool, str, type(None)))
_INT_MIN, _INT_MAX = -(2**63), 2**63 - 1


class _NotNative(Exception):
    """The value as a whole has to be pickled: it is too deep or too large, or meets itself."""


def dump_value(value, dumps=pickle.dumps):
    """The payload of a value as a list of buffers, to be written one after the other: form N when
    there are numpy arrays or numbers in it, else P. The buffers of arrays are their own memory: no
    copy is made here. ``dumps``: as pickle.dumps, with protocol and buffer_callback; what it raises
    is passed on."""
    numpy = sys.modules.get("numpy")
    if numpy is None or type(value) in _PLAIN or not hasattr(numpy, "ndarray"):
        return [b"P", dumps(value, _PROTOCOL)]
    if not isinstance(value, (numpy.ndarray, numpy.generic)):
        found = []
        data = dumps(value, _PROTOCOL, buffer_callback=found.append)
        if not found and b"numpy" not in data:
            return [b"P", data]
    return _Encoder(numpy, dumps).encode(value)


def array_head(dtype, shape):
    """What comes in the payload of an array before its own bytes, and the size of that payload."""
    count = math.prod(shape) * int(dtype[2:])
    head = {"value": {"$a": 0}, "arrays": [[dtype, list(shape)]], "sizes": [count]}
    text = json.dumps(head, separators=(",", ":")).encode("utf-8")
    before = _FIXED.pack(b"N", len(text)) + text
    before += bytes(-len(before) % _ALIGNMENT)
    return before, len(before) + count


class _Encoder:
    def __init__(self, numpy, dumps):
        self._numpy = numpy
        self._dumps = dumps
        self._reset()

    def _reset(self):
        self._arrays = []  # [dtype, shape]
        self._buffers = []
        self._opaque = []
        self._seen = {}  # id of an array -> its index
        self._kept = []
        self._containers = set()
        self._nodes = 0

    def encode(self, value):
        try:
            tree = self._tree(value, 0)
            text = self._head(tree)
        except (_NotNative, UnicodeEncodeError):
            self._reset()
            self._opaque = [value]
            text = self._head({"$p": 0})
        parts = [_FIXED.pack(b"N", len(text)), text]
        size = _FIXED.size + len(text)
        for buffer in self._buffers:
            gap = -size % _ALIGNMENT
            if gap:
                parts.append(bytes(gap))
            parts.append(buffer)
            size += gap + len(buffer)
        return parts

    def _head(self, tree):
        if self._opaque:
            extra = []
            pickled = self._dumps(self._opaque, _PROTOCOL, buffer_callback=extra.append)
            self._buffers.append(pickled)
            self._buffers.extend(_raw(buffer) for buffer in extra)
        head = {"value": tree, "arrays": self._arrays, "sizes": [len(buffer) for buffer in self._buffers]}
        return json.dumps(head, allow_nan=False, ensure_ascii=False, separators=(",", ":")).encode("utf-8")

    def _tree(self, value, depth):
        self._nodes += 1
        if depth > _DEPTH_MAX or self._nodes > _NODES_MAX:
            raise _NotNative
        kind = type(value)
        if kind is str or kind is bool or value is None:
            return value
        if kind is int:
            return value if _INT_MIN <= value <= _INT_MAX else self._pickled(value)
        if kind is float:
            return _number(value)
        if kind is dict:
            self._enter(value)
            if all(type(key) is str and key[:1] != "$" for key in value):
                return {key: self._tree(item, depth + 1) for key, item in value.items()}
            return {"$d": [[self._tree(key, depth + 1), self._tree(item, depth + 1)] for key, item in value.items()]}
        if kind is list:
            self._enter(value)
            return [self._tree(item, depth + 1) for item in value]
        if kind is tuple:
            return {"$t": [self._tree(item, depth + 1) for item in value]}
        if kind is self._numpy.ndarray and value.dtype.kind in _NATIVE_KINDS and value.dtype.itemsize:
            return {"$a": self._array(value)}
        if isinstance(value, self._numpy.generic) and value.dtype.kind in _INLINE_SCALARS and value.dtype.itemsize <= 8:
            plain = value.item()
            return {"$n": [value.dtype.str, _number(plain, bare=True) if type(plain) is float else plain]}
        if kind is bytes:
            uint8 = self._numpy.uint8
            return {"$b": self._array(self._numpy.frombuffer(value, uint8) if value else self._numpy.empty(0, uint8))}
        frame = _frame_parts(value, self._numpy)
        if frame is not None:
            columns, index = frame
            self._nodes += sum(len(column) for _name, column in columns if type(column) is list)
            named = [[name, column if type(column) is list else {"$a": self._array(column)}] for name, column in columns]
            return {"$frame": {"columns": named, "index": index if type(index) is list else {"$a": self._array(index)}}}
        return self._pickled(value)

    def _enter(self, container):
        # One list in two places has to come back as one: only pickle can do that.
        if id(container) in self._containers:
            raise _NotNative
        self._containers.add(id(container))

    def _pickled(self, value):
        self._opaque.append(value)
        return {"$p": len(self._opaque) - 1}

    def _array(self, array):
        index = self._seen.get(id(array))
        if index is None:
            dtype = array.dtype
            if dtype.kind == "f" and dtype.itemsize > 8 or dtype.kind == "c" and dtype.itemsize > 16:
                raise _NotNative  # what a long double is depends on the machine
            index = self._seen[id(array)] = len(self._arrays)
            whole = self._numpy.ascontiguousarray(array)  # the same one unless it has gaps
            self._arrays.append([dtype.str, list(array.shape)])
            self._kept.append(array)  # its id must stay its own
            self._buffers.append(memoryview(whole.reshape(-1).view(self._numpy.uint8)) if array.size else b"")
        return index


def _frame_parts(value, numpy):
    """The columns by name and the index of a pandas frame, each a numpy array or a list of text (an
    index that only counts: start, stop, step); None: it is none, or one that only pickle can send."""
    pandas = sys.modules.get("pandas")
    if pandas is None or type(value) is not getattr(pandas, "DataFrame", None) or value.attrs or not len(value.columns):
        return None
    names = value.columns
    if type(names) is not pandas.Index or names.name is not None or not names.is_unique or not all(type(name) is str for name in names):
        return None
    index = value.index
    if type(index) is pandas.RangeIndex and index.name is None:
        rows = [index.start, index.stop, index.step]
    elif index.name is None and (type(index) is pandas.Index or type(index).__name__ in ("Int64Index", "UInt64Index", "Float64Index")):
        rows = _column(index, numpy, "iuf")
    else:
        return None
    columns = [(name, _column(value[name], numpy, _COLUMN_KINDS)) for name in names]
    return None if rows is None or any(column is None for _name, column in columns) else (columns, rows)


def _column(series, numpy, kinds):
    if not isinstance(series.dtype, numpy.dtype):
        return None
    if series.dtype.kind in kinds:
        return series.to_numpy()
    texts = series.tolist() if series.dtype.kind == "O" and len(series) else []
    return texts if texts and all(type(text) is str for text in texts) else None


def _number(value, bare=False):
    if math.isfinite(value):
        return value
    name = "nan" if value != value else "inf" if value > 0 else "-inf"
    return name if bare else {"$f": name}


def _raw(buffer):
    try:
        return buffer.raw()
    except BufferError:  # neither C nor Fortran order
        return bytes(buffer)


def load_value(data):
    """The value of a payload that begins with N. Arrays use the memory of ``data`` when that is
    writable and suits them, else they are copied. Raises ImportError without numpy, ValueError when
    it is damaged, and what unpickling raises."""
    return _Decoder(memoryview(data)).value()


def pickle_in(data):
    """The pickle that a payload is (P, D) or has in it (N; empty when there is none)."""
    if data[:1] != b"N":
        return bytes(memoryview(data)[1:])
    _head, arrays, buffers = _take_apart(memoryview(data))
    return bytes(buffers[len(arrays)]) if len(buffers) > len(arrays) else b""


def _take_apart(view):
    """The tree, the descriptions of the arrays, and all buffers."""
    mark, length = _FIXED.unpack_from(view, 0)
    if mark != b"N" or _FIXED.size + length > len(view):
        raise ValueError("no value with native arrays, or cut off")
    head = json.loads(bytes(view[_FIXED.size : _FIXED.size + length]).decode("utf-8"))
    buffers = []
    at = _FIXED.size + length
    for size in head["sizes"]:
        at += -at % _ALIGNMENT
        if at + size > len(view):
            raise ValueError("cut off: buffer %d has %d of %d bytes" % (len(buffers), max(0, len(view) - at), size))
        buffers.append(view[at : at + size])
        at += size
    return head["value"], head["arrays"], buffers


class _Decoder:
    def __init__(self, view):
        self._numpy = importlib.import_module("numpy")
        self._tree, arrays, buffers = _take_apart(view)
        count = len(arrays)
        self._opaque = pickle.loads(buffers[count], buffers=buffers[count + 1 :]) if len(buffers) > count else []
        self._arrays = [self._array(kind, shape, buffer) for (kind, shape), buffer in zip(arrays, buffers)]

    def _array(self, kind, shape, buffer):
        array = self._numpy.frombuffer(buffer, dtype=kind).reshape(shape) if len(buffer) else self._numpy.empty(shape, kind)
        return array if array.flags.writeable and array.flags.aligned else array.copy()

    def value(self):
        return self._value(self._tree)

    def _value(self, node):
        kind = type(node)
        if kind is list:
            return [self._value(item) for item in node]
        if kind is not dict:
            return node
        if len(node) == 1:
            ((mark, content),) = node.items()
            if mark[:1] == "$":
                return self._marked(mark, content)
        return {key: self._value(item) for key, item in node.items()}

    def _frame(self, content):
        pandas = importlib.import_module("pandas")
        columns = {name: self._column(node) for name, node in content["columns"]}
        index = content["index"]
        plain = type(index) is list and type(index[0]) is int
        rows = pandas.RangeIndex(*index) if plain else pandas.Index(self._column(index))
        return pandas.DataFrame(columns, index=rows, copy=False)

    def _column(self, node):
        return self._numpy.array(node, dtype=object) if type(node) is list else self._value(node)

    def _marked(self, mark, content):
        if mark == "$a":
            return self._arrays[content]
        if mark == "$t":
            return tuple(self._value(item) for item in content)
        if mark == "$n":
            return self._numpy.dtype(content[0]).type(content[1])
        if mark == "$f":
            return float(content)
        if mark == "$b":
            return self._arrays[content].tobytes()
        if mark == "$d":
            return {self._value(key): self._value(item) for key, item in content}
        if mark == "$p":
            return self._opaque[content]
        if mark == "$frame":
            return self._frame(content)
        raise ValueError("unknown mark %r: sent by a newer farcall" % (mark,))
