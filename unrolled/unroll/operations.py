"""The ATen operations that have a C form, with the C for one element of each."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import fx
from torch._decomp import core_aten_decompositions, get_decompositions

from unrolled.unroll.places import size
from unrolled.unroll.words import operation

aten = torch.ops.aten


def _c(text: str) -> Callable[..., str]:
    return lambda *values: text.format(*values)


def _with_alpha(sign: str) -> Callable[..., str]:
    return lambda a, b, alpha="": f"({a} {sign} {b})" if not alpha else f"({a} {sign} {alpha} * {b})"


def _power(base: str, exponent: str) -> str:
    for known, text in _POWERS.items():
        if exponent == f"((REAL){known!r})":
            return text.format(base)
    return f"f_pow({base}, {exponent})"


_POWERS = {2.0: "({0} * {0})", 3.0: "({0} * {0} * {0})", 1.0: "{0}", -1.0: "(1 / {0})", 0.5: "f_sqrt({0})"}
_POWERS |= {-0.5: "(1 / f_sqrt({0}))", 0.0: "((REAL)1)", -2.0: "(1 / ({0} * {0}))"}


def _clamp(value: str, low: str = "", high: str = "") -> str:
    if low:
        value = f"f_max({value}, {low})"
    return f"f_min({value}, {high})" if high else value


#: Element-wise operations. Each function takes its arguments as C, in the order of the operation's arguments.
ELEMENTWISE: dict[object, Callable[..., str]] = {
    aten.add.Tensor: _with_alpha("+"),
    aten.add.Scalar: _with_alpha("+"),
    aten.sub.Tensor: _with_alpha("-"),
    aten.sub.Scalar: _with_alpha("-"),
    aten.rsub.Scalar: _c("({1} - {0})"),
    aten.rsub.Tensor: _c("({1} - {0})"),
    aten.mul.Tensor: _c("({0} * {1})"),
    aten.mul.Scalar: _c("({0} * {1})"),
    aten.div.Tensor: _c("({0} / {1})"),
    aten.div.Scalar: _c("({0} / {1})"),
    aten.addcmul.default: lambda a, b, c, value="((REAL)1.0)": f"({a} + {value} * {b} * {c})",
    aten.lerp.Tensor: _c("({0} + {2} * ({1} - {0}))"),
    aten.lerp.Scalar: _c("({0} + {2} * ({1} - {0}))"),
    aten.neg.default: _c("(-{0})"),
    aten.abs.default: _c("f_abs({0})"),
    aten.sign.default: _c("(REAL)(({0} > 0) - ({0} < 0))"),
    aten.sgn.default: _c("(REAL)(({0} > 0) - ({0} < 0))"),
    aten.relu.default: _c("f_max({0}, 0)"),
    aten.sigmoid.default: _c("f_sigmoid({0})"),
    aten.tanh.default: _c("f_tanh({0})"),
    aten.exp.default: _c("f_exp({0})"),
    aten.expm1.default: _c("f_expm1({0})"),
    aten.log.default: _c("f_log({0})"),
    aten.log1p.default: _c("f_log1p({0})"),
    aten.sqrt.default: _c("f_sqrt({0})"),
    aten.rsqrt.default: _c("(1 / f_sqrt({0}))"),
    aten.reciprocal.default: _c("(1 / {0})"),
    aten.sin.default: _c("f_sin({0})"),
    aten.cos.default: _c("f_cos({0})"),
    aten.erf.default: _c("f_erf({0})"),
    aten.atan.default: _c("f_atan({0})"),
    aten.floor.default: _c("f_floor({0})"),
    aten.round.default: _c("f_round({0})"),
    aten.pow.Tensor_Scalar: _power,
    aten.square.default: _c("({0} * {0})"),
    aten.sigmoid_backward.default: _c("({0} * ({1} * (1 - {1})))"),
    aten.tanh_backward.default: _c("({0} * (1 - {1} * {1}))"),
    aten.threshold_backward.default: _c("({1} > {2} ? {0} : 0)"),
    aten.maximum.default: _c("f_max({0}, {1})"),
    aten.minimum.default: _c("f_min({0}, {1})"),
    aten.clamp.default: _clamp,
    aten.clamp_min.default: _c("f_max({0}, {1})"),
    aten.clamp_max.default: _c("f_min({0}, {1})"),
    aten.where.self: _c("({0} ? {1} : {2})"),
    aten.logical_and.default: _c("({0} && {1})"),
    aten.logical_or.default: _c("({0} || {1})"),
    aten.logical_not.default: _c("(!{0})"),
    aten.bitwise_and.Tensor: _c("({0} & {1})"),
    aten.bitwise_or.Tensor: _c("({0} | {1})"),
    aten.bitwise_not.default: _c("(!{0})"),
    aten._to_copy.default: lambda value, *_: f"((REAL){value})",
    aten.masked_fill.Scalar: _c("({1} ? {2} : {0})"),
}
_COMPARISONS = {"eq": "==", "ne": "!=", "lt": "<", "le": "<=", "gt": ">", "ge": ">="}
for _name, _symbol in _COMPARISONS.items():
    ELEMENTWISE[getattr(aten, _name).Scalar] = _c(f"({{0}} {_symbol} {{1}})")
    ELEMENTWISE[getattr(aten, _name).Tensor] = _c(f"({{0}} {_symbol} {{1}})")

#: Operations whose result costs no more to compute again than to load.
CHEAP = frozenset(
    [
        aten.add.Tensor,
        aten.add.Scalar,
        aten.sub.Tensor,
        aten.sub.Scalar,
        aten.rsub.Scalar,
        aten.rsub.Tensor,
        aten.mul.Tensor,
        aten.mul.Scalar,
        aten.neg.default,
        aten.relu.default,
        aten.abs.default,
        aten.where.self,
        aten.maximum.default,
        aten.minimum.default,
        aten.clamp.default,
        aten._to_copy.default,
        aten.logical_not.default,
        aten.bitwise_not.default,
        *(
            getattr(getattr(aten, name), kind)
            for name in ("eq", "ne", "lt", "le", "gt", "ge")
            for kind in ("Scalar", "Tensor")
        ),
    ]
)

#: Operations whose result has the same elements as their argument.
ALIASES = (
    aten.alias.default,
    aten.clone.default,
    aten.detach.default,
    aten.expand.default,
    aten.view.default,
    aten._unsafe_view.default,
    aten.reshape.default,
    aten.unsqueeze.default,
    aten.squeeze.default,
    aten.squeeze.dim,
    aten.squeeze.dims,
    aten.contiguous.default,
    aten.lift_fresh_copy.default,
)
SPLITS = (aten.split.Tensor, aten.split_with_sizes.default)

#: Operations that fill a tensor with one value, with a function that returns the value.
FILLS: dict[object, Callable[[fx.Node], object]] = {
    aten.zeros_like.default: lambda node: 0.0,
    aten.zeros.default: lambda node: 0.0,
    aten.new_zeros.default: lambda node: 0.0,
    aten.ones_like.default: lambda node: 1.0,
    aten.ones.default: lambda node: 1.0,
    aten.new_ones.default: lambda node: 1.0,
    aten.full_like.default: lambda node: node.args[1],
    aten.full.default: lambda node: node.args[1],
    aten.new_full.default: lambda node: node.args[2],
    aten.scalar_tensor.default: lambda node: node.args[0],
}

#: Products of rows with a matrix: `(bias?, rows, matrix)`.
PRODUCTS = (aten.mm.default, aten.addmm.default)


@dataclass(frozen=True)
class Reduction:
    """A reduction over a row's columns: `start`, then `combine(accumulator, value)` for each column, then `result`."""

    symbol: str = "+"
    start: str = "0"
    combine: str = "{0} += {1};"
    result: str = "{0}"


def _over_columns(node: fx.Node) -> int:
    """Return the number of columns; UntraceableError if the reduction is over rows."""
    value = node.args[0].meta["val"]
    dims = node.args[1] if len(node.args) > 1 and node.args[1] else list(range(value.dim()))
    dims = [dims] if isinstance(dims, int) else dims
    if value.dim() != 2 or [dim % value.dim() for dim in dims] != [1]:
        raise operation("mixes the sequences of a batch", node)
    return value.shape[1]


def _sum(node: fx.Node) -> Reduction:
    _over_columns(node)
    return Reduction()


def _mean(node: fx.Node) -> Reduction:
    return Reduction(result=f"{{0}} / (REAL){size(_over_columns(node))}")


def _extreme(symbol: str, start: str, sign: str) -> Callable[[fx.Node], Reduction]:
    def reduction(node: fx.Node) -> Reduction:
        _over_columns(node)
        return Reduction(symbol, start, f"{{0}} = {{1}} {sign} {{0}} ? {{1}} : {{0}};")

    return reduction


REDUCTIONS: dict[object, Callable[[fx.Node], Reduction]] = {
    aten.sum.dim_IntList: _sum,
    aten.mean.dim: _mean,
    aten.amax.default: _extreme("max", "-(REAL)INFINITY", ">"),
    aten.amin.default: _extreme("min", "(REAL)INFINITY", "<"),
}


def decompositions() -> dict:
    """Return the decompositions that a trace uses to write other operations with those above."""
    table = dict(core_aten_decompositions())
    table |= get_decompositions(
        [
            aten.native_layer_norm,
            aten.native_layer_norm_backward,
            aten._softmax,
            aten._softmax_backward_data,
            aten._log_softmax,
            aten._log_softmax_backward_data,
            aten.addmv,
            aten.elu,
            aten.elu_backward,
            aten.gelu,
            aten.gelu_backward,
            aten.hardtanh,
            aten.hardtanh_backward,
            aten.leaky_relu,
            aten.leaky_relu_backward,
            aten.linalg_vector_norm,
        ]
    )
    for kept in (aten.sigmoid_backward.default, aten.tanh_backward.default, aten.threshold_backward.default):
        table.pop(kept, None)
    table[aten.var_mean.correction] = _var_mean
    table[aten.slice_scatter.default] = _slice_scatter
    table[aten.bmm.default] = _bmm
    table[aten.cumsum.default] = _cumsum
    return table


def _var_mean(x, dim=None, *, correction=None, keepdim=False):
    dims = list(range(x.dim())) if dim is None else [d % x.dim() for d in dim]
    count = 1
    for d in dims:
        count *= x.shape[d]
    mean = torch.mean(x, dims, keepdim=True)
    centred = x - mean
    divisor = count - (1 if correction is None else correction)
    variance = torch.sum(centred * centred, dims, keepdim=keepdim) / divisor
    return variance, mean if keepdim else mean.squeeze(dims)


def _bmm(left, right):
    """Write a batch of one product as a single product. Einsum writes every product as a batch, mostly of one."""
    if left.shape[0] != 1:
        return NotImplemented
    return (left.squeeze(0) @ right.squeeze(0)).unsqueeze(0)


def _cumsum(x, dim, *, dtype=None):
    """Write a cumulative sum over the features as a product with a triangle of ones.

    Ordered neurons (Shen et al. 2019) use one.
    """
    if x.dim() != 2 or dim % 2 != 1 or dtype not in (None, x.dtype):
        return NotImplemented
    return x @ torch.ones(x.shape[1], x.shape[1], dtype=x.dtype, device=x.device).triu()


def _slice_scatter(x, source, dim=0, start=None, end=None, step=1):
    size = x.shape[dim]
    start, end, _ = slice(start, end, step).indices(size)
    if step != 1:
        return NotImplemented
    parts = [x.narrow(dim, 0, start), source, x.narrow(dim, end, size - end)]
    return torch.cat([part for part in parts if part.shape[dim]], dim)
