"""`RNN`, `LSTM` and `GRU`: `torch.nn`'s layers, run by this engine.

Each is a subclass of PyTorch's layer. So parameters, their names and initial values, argument checks and `isinstance`
are PyTorch's own. Only the run through time is replaced, and options that `torch.nn` lacks are added.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any, ClassVar

import torch
from torch import Tensor, nn
from torch.nn.utils.rnn import PackedSequence

from unrolled.cells import Cell, ElmanCell, GRUResetAfterCell, LayerNormGRUCell, LayerNormLSTMCell, LSTMCell
from unrolled.errors import ConfigurationError, ShapeError
from unrolled.layers.noise import probability, zoneout_rates
from unrolled.layers.stack import LayerBatch, Regularisation, run_layer

__all__ = ["GRU", "LSTM", "RNN"]


class _EngineLayer(nn.RNNBase):
    """The base class of the three. `_template` gives the cell, and `_tensors` its parameters from the layer's."""

    _state_names: ClassVar[tuple[str, ...]] = ("h",)

    def __init__(
        self,
        *args: Any,
        recurrent_dropout: float = 0.0,
        zoneout: float | tuple[float, ...] = 0.0,
        layer_norm: bool = False,
        backend: str = "auto",
        **kwargs: Any,
    ) -> None:
        super().__init__(*args, **kwargs)
        self.layer_norm, self.backend = layer_norm, backend
        self._noise = Regularisation(
            self.dropout,
            probability("recurrent_dropout", recurrent_dropout),
            zoneout_rates(zoneout, len(self._state_names)),
        )
        # Templates hold no values: every call binds the layer's own parameters to them, so functional_call,
        # parametrizations and moves between devices need no care.
        directions = ("", "_reverse") if self.bidirectional else ("",)
        self._suffixes = [[f"_l{layer}{side}" for side in directions] for layer in range(self.num_layers)]
        self._templates = {
            suffix: self._template(getattr(self, f"weight_ih{suffix}").size(1))
            for suffixes in self._suffixes
            for suffix in suffixes
        }
        if layer_norm:
            self._add_norms()

    def _template(self, input_size: int) -> Cell:
        raise NotImplementedError

    def _tensors(self, suffix: str) -> dict[str, Tensor | None]:
        """Build the cell's parameters from the layer's. `torch.nn` has two biases where the formula has one."""
        own = {name: getattr(self, f"{name}{suffix}") for name in ("weight_ih", "weight_hh")}
        bias = getattr(self, f"bias_ih{suffix}") + getattr(self, f"bias_hh{suffix}") if self.bias else None
        return {**own, "bias": bias}

    def _norm_names(self) -> list[str]:
        template = next(iter(self._templates.values()))
        return [name for name, _ in template.named_parameters() if name.startswith("gain") or name == "bias_c"]

    def _add_norms(self) -> None:
        weight = self.get_parameter("weight_ih_l0")
        for suffix, template in self._templates.items():
            for name in self._norm_names():
                size = template.get_parameter(name).shape
                self.register_parameter(f"{name}{suffix}", nn.Parameter(weight.new_empty(size)))
        self._reset_norms()

    def _reset_norms(self) -> None:
        for suffix in self._templates:
            for name in self._norm_names():
                nn.init.constant_(self.get_parameter(f"{name}{suffix}"), 0.0 if name == "bias_c" else 1.0)

    def reset_parameters(self) -> None:
        super().reset_parameters()
        if getattr(self, "layer_norm", False):  # not set yet when torch.nn's constructor draws the initial values
            self._reset_norms()

    def _cell(self, suffix: str) -> Cell:
        tensors = self._tensors(suffix)
        if self.layer_norm:
            tensors |= {name: getattr(self, f"{name}{suffix}") for name in self._norm_names()}
        cell = self._templates[suffix].bind(**tensors)
        cell.training = self.training
        return cell

    def _check(self, input: Tensor | PackedSequence, hx: tuple[Tensor, ...] | None) -> None:
        """Check the arguments as `torch.nn` does, with the same error classes."""
        name, batched, batch_sizes = type(self).__name__, True, None
        if isinstance(input, PackedSequence):
            tensor, batch_sizes = input.data, input.batch_sizes
        elif input.dim() in (2, 3):
            batched = input.dim() == 3
            tensor = input if batched else input.unsqueeze(0 if self.batch_first else 1)
        else:
            raise ValueError(f"{name}: Expected input to be 2D or 3D, got {input.dim()}D instead")
        self.check_input(tensor, batch_sizes)
        if hx is None:
            return
        if len(hx) != len(self._state_names):
            raise ShapeError(f"{name}: expected hx to be ({', '.join(self._state_names)}), got {len(hx)} tensors")
        if any(part.dim() != (3 if batched else 2) for part in hx):
            got = " and ".join(f"{part.dim()}-D" for part in hx)
            expected = "batched 3-D" if batched else "unbatched 2-D"
            raise ShapeError(f"For {expected} input, hx should also be {expected[-3:]} but got {got} tensors")
        rows = [part if batched else part.unsqueeze(1) for part in hx]
        self.check_forward_args(tensor, rows if len(rows) > 1 else rows[0], batch_sizes)  # type: ignore[arg-type]

    def forward(
        self,
        input: Tensor | PackedSequence,
        hx: Tensor | Sequence[Tensor] | None = None,
        *,
        lengths: Tensor | None = None,
    ) -> tuple[Any, Any]:
        """Run as in `torch.nn`. `lengths [B]`, on any device, may replace a PackedSequence (later outputs are 0)."""
        given = None if hx is None else (hx,) if isinstance(hx, Tensor) else tuple(hx)
        self._check(input, given)
        cells = [[self._cell(suffix) for suffix in suffixes] for suffixes in self._suffixes]
        noise = replace(self._noise, dropout=self.dropout)  # the caller may have changed `dropout`, as in torch.nn
        return run_layer(cells, LayerBatch.open(input, self.batch_first, lengths), hx, noise, self.backend)


class RNN(_EngineLayer, nn.RNN):
    """`torch.nn.RNN` on this engine, with the additional options `recurrent_dropout`, `zoneout` and `backend`."""

    def _template(self, input_size: int) -> Cell:
        if self.layer_norm:
            raise ConfigurationError("layer_norm is an option of LSTM and GRU, not of RNN")
        return ElmanCell(input_size, self.hidden_size, nonlinearity=self.nonlinearity, bias=self.bias, device="meta")


class LSTM(_EngineLayer, nn.LSTM):
    """`torch.nn.LSTM` on this engine, with the options `recurrent_dropout`, `zoneout`, `layer_norm` and `backend`.

    With `layer_norm` each layer also has the parameters `gain_ih_l0 [4H]`, `gain_hh_l0 [4H]`, `gain_c_l0 [H]` and
    `bias_c_l0 [H]`; see `LayerNormLSTMCell`.
    """

    _state_names = ("h", "c")

    def _template(self, input_size: int) -> Cell:
        if not self.layer_norm:
            return LSTMCell(input_size, self.hidden_size, proj_size=self.proj_size, bias=self.bias, device="meta")
        if self.proj_size:
            raise ConfigurationError("layer_norm and proj_size cannot be combined; use one of them")
        return LayerNormLSTMCell(input_size, self.hidden_size, bias=self.bias, device="meta")

    def _tensors(self, suffix: str) -> dict[str, Tensor | None]:
        projection = {"weight_hr": getattr(self, f"weight_hr{suffix}")} if self.proj_size else {}
        return super()._tensors(suffix) | projection


class GRU(_EngineLayer, nn.GRU):
    """`torch.nn.GRU` (reset after) on this engine, with `recurrent_dropout`, `zoneout`, `layer_norm` and `backend`.

    With `layer_norm` each layer also has the parameters `gain_ih_l0 [3H]` and `gain_hh_l0 [3H]`; see
    `LayerNormGRUCell`.
    """

    def _template(self, input_size: int) -> Cell:
        cell = LayerNormGRUCell if self.layer_norm else GRUResetAfterCell
        return cell(input_size, self.hidden_size, bias=self.bias, device="meta")

    def _tensors(self, suffix: str) -> dict[str, Tensor | None]:
        tensors = super()._tensors(suffix)
        if not self.bias:
            return tensors | {"bias_hn": None}
        from_input, from_hidden = getattr(self, f"bias_ih{suffix}"), getattr(self, f"bias_hh{suffix}")
        gates, candidate = from_hidden.split((2 * self.hidden_size, self.hidden_size))
        return tensors | {"bias": from_input + torch.cat([gates, torch.zeros_like(candidate)]), "bias_hn": candidate}
