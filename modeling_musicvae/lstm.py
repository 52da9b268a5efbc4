"""LSTMs of conductor and decoder: fused over a whole sequence, and step by step."""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn


class LSTMRecurrence(torch.autograd.Function):
    """One LSTM layer over a sequence whose input gates are already there.

    The forward pass keeps what the backward pass needs in whole-sequence buffers, so that the
    gradient of the recurrent weight is one matrix product over all steps instead of one a step.
    Products run in the weight's dtype, everything else in the input gates'.
    """

    @staticmethod
    def forward(ctx, input_gates, weight, hidden, cell):
        """input_gates (steps, batch, 4 * size), weight (4 * size, size), states (batch, size)."""
        steps, batch, size = *input_gates.shape[:2], hidden.shape[-1]
        gates = torch.empty_like(input_gates)
        tanh_cells = input_gates.new_empty(steps, batch, size)
        hiddens = input_gates.new_empty(steps + 1, batch, size)
        cells = input_gates.new_empty(steps + 1, batch, size)
        hiddens[0], cells[0] = hidden, cell
        for t in range(steps):
            recurrent_gates = hiddens[t].to(weight.dtype) @ weight.T
            torch.add(input_gates[t], recurrent_gates, out=gates[t])
            lstm_cell_(Gates.of(gates[t]), cells[t], cells[t + 1], tanh_cells[t], hiddens[t + 1])
        ctx.save_for_backward(gates, tanh_cells, hiddens, cells, weight)
        return hiddens[1:]

    @staticmethod
    def backward(ctx, grad_hiddens):
        gates, tanh_cells, hiddens, cells, weight = ctx.saved_tensors
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        tanh_backward = torch.ops.aten.tanh_backward.grad_input
        grad_gates = torch.empty_like(gates)
        grad_hidden = torch.zeros_like(cells[0])
        grad_cell = torch.zeros_like(cells[0])
        through_tanh = torch.empty_like(cells[0])
        for t in reversed(range(len(gates))):
            gate, grad_gate = Gates.of(gates[t]), Gates.of(grad_gates[t])
            grad_hidden = grad_hidden + grad_hiddens[t]
            torch.mul(grad_hidden, gate.output, out=through_tanh)
            grad_cell += tanh_backward(through_tanh, tanh_cells[t], grad_input=through_tanh)
            torch.mul(grad_cell, gate.cell, out=grad_gate.input)
            torch.mul(grad_cell, cells[t], out=grad_gate.forget)
            torch.mul(grad_cell, gate.input, out=grad_gate.cell)
            torch.mul(grad_hidden, tanh_cells[t], out=grad_gate.output)
            for activation_backward, grad, activated in (
                (sigmoid_backward, grad_gate.input_forget, gate.input_forget),
                (tanh_backward, grad_gate.cell, gate.cell),
                (sigmoid_backward, grad_gate.output, gate.output),
            ):
                activation_backward(grad, activated, grad_input=grad)
            grad_cell *= gate.forget
            grad_hidden = (grad_gates[t].to(weight.dtype) @ weight).to(gates.dtype)
        flat_gates = grad_gates.flatten(0, 1).to(weight.dtype)
        grad_weight = flat_gates.T @ hiddens[:-1].flatten(0, 1).to(weight.dtype)
        return grad_gates, grad_weight, grad_hidden, grad_cell


class Gates(NamedTuple):
    """Views of the gates (batch, 4 * size) of one step."""

    input_forget: torch.Tensor
    input: torch.Tensor
    forget: torch.Tensor
    cell: torch.Tensor
    output: torch.Tensor

    @classmethod
    def of(cls, gates: torch.Tensor) -> "Gates":
        return cls(gates[:, : gates.shape[1] // 2], *gates.chunk(4, -1))


def lstm_cell_(
    gates: Gates,
    cell: torch.Tensor,
    next_cell: torch.Tensor,
    tanh_cell: torch.Tensor,
    next_hidden: torch.Tensor,
) -> None:
    """One step of an LSTM from its summed gates, which are activated in place.

    Args:
        gates: before activation.
        cell: (batch, size); may be `next_cell`.
        next_cell, tanh_cell, next_hidden: (batch, size), written.
    """
    gates.input_forget.sigmoid_()
    gates.cell.tanh_()
    gates.output.sigmoid_()
    torch.mul(gates.forget, cell, out=next_cell).addcmul_(gates.input, gates.cell)
    torch.tanh(next_cell, out=tanh_cell)
    torch.mul(gates.output, tanh_cell, out=next_hidden)


class UnrolledLSTM(nn.LSTM):
    """An `nn.LSTM` that runs on a CPU as `LSTMRecurrence`, and on a GPU as itself.

    PyTorch's LSTM for CPUs takes milliseconds to set up and cannot start from input gates, whose
    products are cheap for the inputs of this model.
    """

    def forward(
        self, inputs: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]
    ) -> torch.Tensor:
        """All steps at once.

        Args:
            inputs: (steps, batch, input_size).
            state: initial hidden and cell state, each (layers, batch, hidden_size).

        Returns:
            (steps, batch, hidden_size), the top layer's outputs.
        """
        if inputs.is_cuda:
            return super().forward(inputs, state)[0]
        weight_ih, _, bias = self.layer_weights()[0]
        return self.unroll(F.linear(inputs, weight_ih, bias), state)

    def unroll(self, gates: torch.Tensor, state: tuple[torch.Tensor, torch.Tensor]) -> torch.Tensor:
        """`forward` from the first layer's input gates (steps, batch, 4 * hidden_size)."""
        compute_dtype = self.weight_hh_l0.dtype
        if torch.is_autocast_enabled("cpu"):
            compute_dtype = torch.get_autocast_dtype("cpu")
        state_dtype = torch.promote_types(self.weight_hh_l0.dtype, torch.float32)
        hidden, cell = (part.to(state_dtype) for part in state)
        output = None
        for layer, (weight_ih, weight_hh, bias) in enumerate(self.layer_weights()):
            if output is not None:
                gates = F.linear(output, weight_ih, bias)
            output = LSTMRecurrence.apply(
                gates.to(state_dtype), weight_hh.to(compute_dtype), hidden[layer], cell[layer]
            ).to(compute_dtype)
        return output

    def layer_weights(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For each layer its input weight, recurrent weight and the sum of its biases."""
        return [
            (weight_ih, weight_hh, bias_ih + bias_hh)
            for weight_ih, weight_hh, bias_ih, bias_hh in self.all_weights
        ]


class DecoderLSTM(UnrolledLSTM):
    """An LSTM over inputs that differ at each step and a context that never changes.

    It is an LSTM over [inputs, context], and on a GPU it runs as one. On a CPU the same numbers
    come sooner from input gates: the context's product is taken once for all steps, and the
    output head knows a shorter way to that of its one-hot inputs.
    """

    def __init__(
        self,
        input_size: int,
        context_size: int,
        hidden_size: int,
        num_layers: int,
        binary_size: int | None = None,
    ):
        """
        Args:
            input_size: width of the inputs of a step, without the context.
            context_size: width of the context.
            hidden_size: width of the states.
            num_layers: layers.
            binary_size: how many of the inputs, the first ones, are one-hot or hits, which decides
                how their weights start; if not given, all.
        """
        super().__init__(input_size + context_size, hidden_size, num_layers)
        self.context_size = context_size
        self.binary_size = input_size if binary_size is None else binary_size

    def forward(
        self,
        inputs: torch.Tensor,
        context: torch.Tensor,
        state: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """All steps at once.

        Args:
            inputs: (steps, batch, input_size).
            context: (batch, context_size).
            state: initial hidden and cell state, each (layers, batch, hidden_size).

        Returns:
            (steps, batch, hidden_size), the top layer's outputs.
        """
        context = context.expand(len(inputs), -1, -1)
        return super().forward(torch.cat([inputs.to(context.dtype), context], -1), state)

    def input_weight(self) -> torch.Tensor:
        """(input_size + 1, 4 * hidden_size): the part of each input in the gates; the last row is
        zero, for no input at all."""
        return F.pad(self.weight_ih_l0[:, : -self.context_size].T, (0, 0, 0, 1))

    def context_gates(self, context: torch.Tensor) -> torch.Tensor:
        """(..., context_size) -> (..., 4 * hidden_size): the part of the context, and the bias."""
        return F.linear(
            context, self.weight_ih_l0[:, -self.context_size :], self.bias_ih_l0 + self.bias_hh_l0
        )
