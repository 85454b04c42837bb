"""A traced graph as the Python that it is run by: quick to call, and kept from one process to the next."""

from __future__ import annotations

import math
import re
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from unrolled.errors import UntraceableError

if TYPE_CHECKING:
    from torch import fx

#: What generated code may name.
_NAMES = {"torch": torch, "device": torch.device, "inf": math.inf, "nan": math.nan, "NoneType": type(None)}


class Graph:
    """`graph(rows, values...) -> [values...]`; pickled as its source."""

    def __init__(self, source: str, tensors: dict[str, Tensor]) -> None:
        self.source, self.tensors = source, tensors
        space: dict[str, Any] = dict(_NAMES)
        exec(compile(source, "<a traced step>", "exec"), space)
        self._function, self._own = space["forward"], SimpleNamespace(**tensors)

    @classmethod
    def of(cls, module: fx.GraphModule) -> Graph:
        code = module.graph.python_code("self")
        names = [str(node.target) for node in module.graph.nodes if node.op == "get_attr"]
        used = [name for name in code.globals if re.search(rf"\b{name}\b", code.src)]
        unknown = [name for name in used if name not in _NAMES] + [name for name in names if "." in name]
        if unknown:
            raise UntraceableError(f"its graph reads {unknown[0]}, which cannot be kept")
        return cls(code.src, {name: getattr(module, name) for name in names})

    def __call__(self, *values: Any) -> list[Tensor]:
        return self._function(self._own, *values)

    def __reduce__(self):
        return Graph, (self.source, self.tensors)
