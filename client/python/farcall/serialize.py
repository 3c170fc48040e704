"""Globus Compute's names for how functions and values travel, and what each means here.

    Executor("mycluster", serializer=ComputeSerializer(strategy_code=AllCodeStrategies(), strategy_data=JSONData()))

Wherever a strategy is asked for, one of these classes or an instance of it will do, its name
(``"JSONData"``, also as ``"globus_compute_sdk.serialize.JSONData"``), or farcall's own word for it
(``"json"``). docs/python.md has the table.
"""

from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

from . import serialization as _wire
from .errors import DeserializationError, SerializationError


class SerializationStrategy:
    """A way to turn functions (``for_code``) or values into bytes. ``word`` is farcall's for it."""

    for_code = False
    word = ""

    def serialize(self, data: Any) -> bytes:
        """The bytes of a value or a function. Raises SerializationError."""
        if self.for_code:
            return _pack_code(_wire.serialize_function(data, self.word))
        return _wire.serialize_value(data, self.word)

    def deserialize(self, payload: bytes) -> Any:
        """The way back. Raises DeserializationError."""
        return _unpack(payload)

    def __repr__(self) -> str:
        return "%s()" % type(self).__name__


class DillDataBase64(SerializationStrategy):
    """Values by dill. (The name is Globus Compute's; nothing is made longer by base64 here.)"""

    word = "dill"


class JSONData(SerializationStrategy):
    """Values as JSON: needs nothing on the worker and works across Python versions. Tuples become lists."""

    word = "json"


class AllDataStrategies(SerializationStrategy):
    """JSON where it can express the values exactly, else dill."""

    word = "json-or-dill"


class DillCode(SerializationStrategy):
    """Functions by dill, as bytecode: the worker needs the same minor version of Python."""

    for_code = True
    word = "dill"


class PureSourceTextInspect(SerializationStrategy):
    """The text of the function, which has to import inside of it what it needs."""

    for_code = True
    word = "source"


class PureSourceDill(PureSourceTextInspect):
    """The text of the function, also of one that was typed into an interactive session."""

    word = "source"


class DillCodeSource(PureSourceTextInspect):
    """Old name of PureSourceDill."""


class DillCodeTextInspect(PureSourceTextInspect):
    """Old name of PureSourceTextInspect."""


class AllCodeStrategies(SerializationStrategy):
    """The text of the function where it can be had, else its bytecode."""

    for_code = True
    word = "source-or-dill"


class CombinedCode(AllCodeStrategies):
    """Old name of AllCodeStrategies."""


#: What Globus Compute uses when nobody asks for anything; farcall's own default is better (see
#: serialize_function and serialize_arguments) and is what None stands for.
DEFAULT_STRATEGY_CODE = DillCode()
DEFAULT_STRATEGY_DATA = DillDataBase64()

STRATEGIES: Dict[str, type] = {
    kind.__name__: kind
    for kind in (
        DillDataBase64,
        JSONData,
        AllDataStrategies,
        DillCode,
        PureSourceTextInspect,
        PureSourceDill,
        DillCodeSource,
        DillCodeTextInspect,
        AllCodeStrategies,
        CombinedCode,
    )
}

Strategy = Union[None, str, SerializationStrategy, type]


def strategy_word(strategy: Strategy, for_code: bool) -> Optional[str]:
    """farcall's word for a strategy; None for None. Raises SerializationError."""
    if strategy is None:
        return None
    words = _wire.CODE_STRATEGIES if for_code else _wire.VALUE_STRATEGIES
    if isinstance(strategy, str):
        if strategy in words:
            return strategy
        strategy = STRATEGIES.get(strategy.rpartition(".")[2], strategy)
    kind = strategy if isinstance(strategy, type) else type(strategy)
    what = "functions" if for_code else "values"
    if not issubclass(kind, SerializationStrategy):
        known = list(words) + [name for name, one in STRATEGIES.items() if one.for_code == for_code]
        raise SerializationError("%r is no way to send %s; there are: %s" % (strategy, what, ", ".join(known)))
    if kind.for_code != for_code:
        raise SerializationError("%s is not a way to send %s" % (kind.__name__, what))
    return kind.word


def result_words(strategies: Optional[Sequence[Strategy]]) -> List[str]:
    """What the worker is told about results: words, the first that works is used."""
    if isinstance(strategies, (str, SerializationStrategy, type)):
        raise SerializationError("result_serializers must be a list of strategies, got %r" % (strategies,))
    return [word for one in strategies or () for word in (strategy_word(one, False) or "pickle").split("-or-")]


class Chosen(NamedTuple):
    """What a ``serializer=`` argument asks for."""

    code: Optional[str] = None
    data: Optional[str] = None
    allowed: Optional[frozenset] = None


class ComputeSerializer:
    """How functions and values travel, as Globus Compute's class of this name.

    ``allowed_deserializer_types``: results in any other form are refused with a
    DeserializationError before a byte of them is looked at. At least one for code and one for
    data, classes or names; ``"globus_compute_sdk.*Data"`` and ``"*Code"`` stand for all.
    """

    def __init__(
        self,
        strategy_code: Strategy = None,
        strategy_data: Strategy = None,
        *,
        allowed_deserializer_types: Optional[Sequence[Strategy]] = None,
    ):
        self.code_serializer = strategy_word(strategy_code, True)
        self.data_serializer = strategy_word(strategy_data, False)
        self.allowed_deserializer_types = allowed_deserializer_types
        self._allowed = _allowed(allowed_deserializer_types)

    @property
    def chosen(self) -> Chosen:
        """For Client and Executor."""
        return Chosen(self.code_serializer, self.data_serializer, self._allowed)

    def serialize(self, data: Any) -> bytes:
        """The bytes of a value, or of a function. Raises SerializationError."""
        if callable(data):
            return _pack_code(_wire.serialize_function(data, self.code_serializer))
        return _wire.serialize_value(data, self.data_serializer)

    def deserialize(self, payload: bytes) -> Any:
        """The way back. Raises DeserializationError."""
        return _unpack(payload, self._allowed)

    def check_strategies(self, function: Any, *args: Any, **kwargs: Any) -> Tuple[Any, Tuple, Dict[str, Any]]:
        """Sends a function and arguments through the strategies, there and back, without running
        anything; returns what arrived. Raises SerializationError, DeserializationError."""
        arrived = self.deserialize(self.serialize(function))
        values = self.deserialize(_wire.serialize_value((args, kwargs), self.data_serializer))
        return arrived, tuple(values[0]), values[1]


def choose(serializer: Any) -> Chosen:
    """What a ``serializer=`` argument asks for: a ComputeSerializer, a strategy of either kind."""
    if serializer is None:
        return Chosen()
    if isinstance(serializer, ComputeSerializer):
        return serializer.chosen
    kind = serializer if isinstance(serializer, type) else type(serializer)
    if issubclass(kind, SerializationStrategy) and kind.for_code:
        return Chosen(code=strategy_word(serializer, True))
    return Chosen(data=strategy_word(serializer, False))


_KINDS = {"json": b"J", "dill": b"D", "pickle": b"P", "cloudpickle": b"P"}


def _allowed(types: Optional[Sequence[Strategy]]) -> Optional[frozenset]:
    if types is None:
        return None
    every = list(STRATEGIES.values())
    found: List[type] = []
    for one in types:
        if isinstance(one, str) and one.endswith("*Data"):
            found += [kind for kind in every if not kind.for_code]
        elif isinstance(one, str) and one.endswith("*Code"):
            found += [kind for kind in every if kind.for_code]
        else:
            named = STRATEGIES.get(one.rpartition(".")[2]) if isinstance(one, str) else one
            kind = named if isinstance(named, type) else type(named)
            if not issubclass(kind, SerializationStrategy):
                raise SerializationError("%r is no strategy that could be allowed; there are: %s" % (one, ", ".join(STRATEGIES)))
            found.append(kind)
    for wanted, text in ((True, "code"), (False, "data")):
        if not any(kind.for_code == wanted for kind in found):
            raise SerializationError("allowed_deserializer_types must name at least one strategy for %s" % text)
    kinds = {_KINDS[word] for kind in found if not kind.for_code for word in kind.word.split("-or-")}
    if b"D" in kinds:
        kinds.add(b"P")  # a pickle can do nothing that a dill cannot
    if b"P" in kinds:
        kinds.add(b"N")  # which may have a pickle in it
    return frozenset(kinds)


def _pack_code(code: "_wire.Code") -> bytes:
    head = "\n".join((code.kind, str(code.meta.get("serializer", "")), code.name))
    return b"C" + head.encode("utf-8") + b"\0" + code.body


def _unpack(payload: bytes, allowed: Optional[frozenset] = None) -> Any:
    if payload[:1] != b"C":
        return _wire.deserialize_result(payload, allowed=allowed)
    head, _zero, body = payload[1:].partition(b"\0")
    kind, serializer, name = head.decode("utf-8").split("\n")
    try:
        return _wire.load_function(kind, serializer, name, body)
    except Exception as error:
        raise DeserializationError("the code of %s cannot be loaded: %s: %s" % (name, type(error).__name__, error)) from error


__all__ = list(STRATEGIES) + [
    "ComputeSerializer",
    "SerializationStrategy",
    "DEFAULT_STRATEGY_CODE",
    "DEFAULT_STRATEGY_DATA",
]
