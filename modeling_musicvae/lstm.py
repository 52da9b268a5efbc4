"""LSTMs of conductor and decoder: fused over a whole sequence, and step by step."""

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
            lstm_cell_(gates[t], cells[t], cells[t + 1], tanh_cells[t], hiddens[t + 1])
        ctx.save_for_backward(gates, tanh_cells, hiddens, cells, weight)
        return hiddens[1:]

    @staticmethod
    def backward(ctx, grad_hiddens):
        gates, tanh_cells, hiddens, cells, weight = ctx.saved_tensors
        sigmoid_backward = torch.ops.aten.sigmoid_backward.grad_input
        tanh_backward = torch.ops.aten.tanh_backward.grad_input
        size = weight.shape[1]
        grad_gates = torch.empty_like(gates)
        grad_hidden = torch.zeros_like(cells[0])
        grad_cell = torch.zeros_like(cells[0])
        through_tanh = torch.empty_like(cells[0])
        for t in reversed(range(len(gates))):
            i, f, g, o = gates[t].chunk(4, -1)
            grad_i, grad_f, grad_g, grad_o = grad_gates[t].chunk(4, -1)
            grad_hidden = grad_hidden + grad_hiddens[t]
            torch.mul(grad_hidden, o, out=through_tanh)
            grad_cell += tanh_backward(through_tanh, tanh_cells[t], grad_input=through_tanh)
            torch.mul(grad_cell, g, out=grad_i)
            torch.mul(grad_cell, cells[t], out=grad_f)
            torch.mul(grad_cell, i, out=grad_g)
            torch.mul(grad_hidden, tanh_cells[t], out=grad_o)
            grad_if = grad_gates[t][:, : 2 * size]
            sigmoid_backward(grad_if, gates[t][:, : 2 * size], grad_input=grad_if)
            tanh_backward(grad_g, g, grad_input=grad_g)
            sigmoid_backward(grad_o, o, grad_input=grad_o)
            grad_cell *= f
            grad_hidden = (grad_gates[t].to(weight.dtype) @ weight).to(gates.dtype)
        flat_gates = grad_gates.flatten(0, 1).to(weight.dtype)
        grad_weight = flat_gates.T @ hiddens[:-1].flatten(0, 1).to(weight.dtype)
        return grad_gates, grad_weight, grad_hidden, grad_cell


def lstm_cell_(
    gates: torch.Tensor,
    cell: torch.Tensor,
    next_cell: torch.Tensor,
    tanh_cell: torch.Tensor,
    next_hidden: torch.Tensor,
) -> None:
    """One step of an LSTM from its summed gates, which are activated in place.

    Args:
        gates: (batch, 4 * size), input, forget, cell and output gate before activation.
        cell: (batch, size); may be `next_cell`.
        next_cell, tanh_cell, next_hidden: (batch, size), written.
    """
    size = cell.shape[-1]
    gates[:, : 2 * size].sigmoid_()
    gates[:, 2 * size : 3 * size].tanh_()
    gates[:, 3 * size :].sigmoid_()
    i, f, g, o = gates.chunk(4, -1)
    torch.mul(f, cell, out=next_cell).addcmul_(i, g)
    torch.tanh(next_cell, out=tanh_cell)
    torch.mul(o, tanh_cell, out=next_hidden)


class UnrolledLSTM(nn.LSTM):
    """An `nn.LSTM` that runs on a CPU as `LSTMRecurrence`, and on a GPU as itself.

    PyTorch's LSTM for CPUs takes milliseconds to set up and cannot start from input gates, whose
    products are cheap for what this model reads.
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

    def step(
        self,
        layer_weights: list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]],
        gates: torch.Tensor,
        hidden: torch.Tensor,
        cell: torch.Tensor,
    ) -> torch.Tensor:
        """One step without autograd.

        Args:
            layer_weights: see `layer_weights`, taken once for all steps.
            gates: (batch, 4 * hidden_size), the first layer's input gates.
            hidden, cell: (layers, batch, hidden_size), updated in place.

        Returns:
            (batch, hidden_size), the top layer's output, a view of `hidden`.
        """
        tanh_cell = torch.empty_like(cell[0])
        for layer, (weight_ih, weight_hh, bias) in enumerate(layer_weights):
            if layer > 0:
                gates = F.linear(hidden[layer - 1], weight_ih, bias)
            gates = torch.addmm(gates, hidden[layer], weight_hh.T)
            lstm_cell_(gates, cell[layer], cell[layer], tanh_cell, hidden[layer])
        return hidden[-1]

    def layer_weights(self) -> list[tuple[torch.Tensor, torch.Tensor, torch.Tensor]]:
        """For each layer its input weight, recurrent weight and the sum of its biases."""
        return [
            (weight_ih, weight_hh, bias_ih + bias_hh)
            for weight_ih, weight_hh, bias_ih, bias_hh in self.all_weights
        ]


class DecoderLSTM(UnrolledLSTM):
    """An LSTM that reads the previous pattern, one-hot, beside a context that never changes.

    It is an LSTM over [one_hot(previous), context], and on a GPU it runs as one. On a CPU the same
    numbers come sooner: a one-hot product is a row of the weight, and the context's product is
    taken once for all steps.
    """

    def __init__(self, num_patterns: int, context_size: int, hidden_size: int, num_layers: int):
        super().__init__(num_patterns + context_size, hidden_size, num_layers)
        self.num_patterns = num_patterns

    def forward(
        self,
        previous: torch.Tensor,
        context: torch.Tensor,
        state: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """All steps at once, the patterns being known.

        Args:
            previous: int64 (steps, batch), the pattern before each step; `num_patterns` is none.
            context: (batch, context_size).
            state: initial hidden and cell state, each (layers, batch, hidden_size).

        Returns:
            (steps, batch, hidden_size), the top layer's outputs.
        """
        if previous.is_cuda:
            return self.forward_one_hot(previous, context, state)
        gates = F.embedding(previous, self.pattern_gates()) + self.context_gates(context)
        return self.unroll(gates, state)

    def forward_one_hot(
        self,
        previous: torch.Tensor,
        context: torch.Tensor,
        state: tuple[torch.Tensor, torch.Tensor],
    ) -> torch.Tensor:
        """The definition of `forward`: an LSTM over one-hot patterns beside the context."""
        one_hot = F.one_hot(previous, self.num_patterns + 1)[..., : self.num_patterns]
        context = context.expand(len(previous), -1, -1)
        return super().forward(torch.cat([one_hot.to(context.dtype), context], -1), state)

    def pattern_gates(self) -> torch.Tensor:
        """(num_patterns + 1, 4 * hidden_size): what each previous pattern adds to the gates."""
        one_hot_gates = self.weight_ih_l0[:, : self.num_patterns].T
        return torch.cat([one_hot_gates, one_hot_gates.new_zeros(1, one_hot_gates.shape[1])])

    def context_gates(self, context: torch.Tensor) -> torch.Tensor:
        """(..., context_size) -> (..., 4 * hidden_size): what the context adds, and the bias."""
        return F.linear(
            context, self.weight_ih_l0[:, self.num_patterns :], self.bias_ih_l0 + self.bias_hh_l0
        )
