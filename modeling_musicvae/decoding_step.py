"""One step of the decoder, without autograd: what drawing step by step and the export both run.

All that depends on the weights alone is folded into tables once: what a frame adds to the gates is
a row, the scores of hits are part of the pattern's logits, and one sigmoid serves all gates.
"""

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import nn

from .lstm import DecoderLSTM
from .output_heads import CategoricalHead, FixedDrums, OutputHead

# A number, or the input of an exported graph.
Temperature = float | torch.Tensor


class StepState(NamedTuple):
    """All that one step leaves to the next.

    Attributes:
        hidden, cell: (layers, batch, hidden_size) each, as one tensor a layer.
        frame: (batch, frame_size), the frame before, in the output head's numbers.
        features: float32 (batch, num_features), the same frame's, see `OutputHead.features`.
    """

    hidden: tuple[torch.Tensor, ...]
    cell: tuple[torch.Tensor, ...]
    frame: torch.Tensor
    features: torch.Tensor


class DecodingStep(nn.Module):
    """One step of the decoder: the state before and the look-back to the state after.

    It holds copies of the weights, folded; after a change of the weights it is made anew.
    """

    def __init__(self, lstm: DecoderLSTM, output: nn.Linear, head: OutputHead, dense_size: int):
        """dense_size: width of the look-back, which is the end of the decoder's input."""
        super().__init__()
        (own, recurrent, _), *others = lstm.layer_weights()
        # tanh(x) = 2 * sigmoid(2 * x) - 1: with the new cell's gate doubled, one sigmoid does.
        doubled = torch.tensor([1, 1, 2, 1], dtype=own.dtype, device=own.device)
        self.gate_scale = nn.Buffer(doubled.repeat_interleave(lstm.hidden_size))
        weight = lstm.input_weight() * self.gate_scale
        folds = isinstance(head, CategoricalHead) and weight.dtype == torch.float32
        self.head = (FoldedHead if folds else HeadStep)(head, output, weight)
        lookback = weight[len(weight) - 1 - dense_size : -1]
        recurrent = recurrent.T * self.gate_scale
        weights = [torch.cat([self.head.feature_weight, lookback, recurrent])]
        weights += [torch.cat([ih, hh], 1).T * self.gate_scale for ih, hh, _ in others]
        biases = [bias * self.gate_scale for *_, bias in others]
        self.weights, self.biases = nn.ParameterList(weights), nn.ParameterList(biases)

    def start(self, frame: torch.Tensor) -> StepState:
        """The state before the first segment, whose LSTM has not started yet."""
        features = torch.zeros(len(frame), self.head.head.num_features, device=frame.device)
        return StepState((), (), frame, features)

    def restart(self, state: StepState, initial: tuple[torch.Tensor, torch.Tensor]) -> StepState:
        """The state before a segment: the LSTM's is `initial`, hidden and cell, each
        (layers, batch, hidden_size)."""
        hidden, cell = initial
        cell = cell.to(torch.promote_types(cell.dtype, torch.float32))
        return state._replace(hidden=hidden.unbind(0), cell=cell.unbind(0))

    def forward(
        self,
        state: StepState,
        gates: torch.Tensor,
        lookback: torch.Tensor,
        temperature: Temperature,
        uniform: torch.Tensor,
        fixed: FixedDrums | None = None,
    ) -> StepState:
        """Draws the next frame.

        Args:
            state: of the step before.
            gates: (batch, 4 * hidden_size), what context and conditioning add, times `gate_scale`.
            lookback: (batch, dense_size).
            temperature, uniform, fixed: see `OutputHead.sample`.
        """
        gates = gates + self.head.frame_gates(state.frame)
        inputs = self.head.dense_features(state.features, lookback.dtype)
        inputs = [*inputs, lookback, state.hidden[0]]
        hidden, cell = [], []
        for layer, weight in enumerate(self.weights):
            if layer > 0:
                gates, inputs = self.biases[layer - 1], [hidden[-1], state.hidden[layer]]
            activated = torch.addmm(gates, torch.cat(inputs, 1), weight)
            activated = activated.to(state.cell[layer].dtype).sigmoid()
            into, forget, new, out = activated.unflatten(1, (4, -1)).unbind(1)
            cell.append(torch.addcmul(forget * state.cell[layer] - into, into, new, value=2))
            hidden.append((out * cell[-1].tanh()).to(weight.dtype))
        frame, features = self.head.draw(hidden[-1], temperature, uniform, fixed)
        return StepState(tuple(hidden), tuple(cell), frame, features)


class HeadStep(nn.Module):
    """A head's part of a step as the head itself computes it."""

    def __init__(self, head: OutputHead, output: nn.Linear, weight: torch.Tensor):
        super().__init__()
        self.head, self.output, self.input_weight = head, output, nn.Buffer(weight)
        self.feature_weight = weight[:0]

    def frame_gates(self, frame: torch.Tensor) -> torch.Tensor:
        """The part of the previous frame in the gates, but for the product of `feature_weight`."""
        return self.head.input_gates(frame, self.input_weight)

    def dense_features(self, features: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
        """The inputs whose weights are `feature_weight`."""
        return []

    def draw(
        self,
        hidden: torch.Tensor,
        temperature: Temperature,
        uniform: torch.Tensor,
        fixed: FixedDrums | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """The next frame and its features, from the top layer's output."""
        frame = self.head.sample(self.output(hidden).float(), temperature, uniform, fixed)
        return frame, self.head.features(frame)


class FoldedHead(HeadStep):
    """A categorical head's part of a step, by tables. Its draws are those of the head but for
    rounding.

    Silence is a class of velocity and of timing, so that both are drawn in one operation: the bias
    of a pattern leaves a silent drum no other class, and a hit all others.
    """

    def __init__(self, head: CategoricalHead, output: nn.Linear, weight: torch.Tensor):
        super().__init__(head, output, weight)
        patterns, drums, device = head.num_patterns, head.num_drums, weight.device
        every_frame = F.pad(torch.arange(patterns, device=device)[:, None], (0, head.num_draws - 1))
        hits = head.features(every_frame)[:, :drums]
        self.hits = nn.Buffer(hits)

        start = head.input_size - head.num_features + drums  # of the weights of velocity and timing
        rows = weight[:patterns]
        if head.num_hit_features:
            rows = rows + hits @ weight[start - drums : start]
        self.pattern_gates = nn.Buffer(F.pad(rows, (0, 0, 0, 1)))  # the last: no frame before
        self.feature_weight = weight[start : head.input_size]

        sizes = [patterns, head.num_hit_features]
        scores, scores_of_hits, expression = output.weight.split(
            [*sizes, head.logits_size - sum(sizes)]
        )
        bias, bias_of_hits, expression_bias = output.bias.split(
            [*sizes, head.logits_size - sum(sizes)]
        )
        if head.num_hit_features:
            scores, bias = scores + hits @ scores_of_hits, bias + hits @ bias_of_hits
        self.pattern_weight = nn.Buffer(scores.T.contiguous())
        self.pattern_bias = nn.Buffer(bias)
        if head.bins:
            self._fold_expression(expression, expression_bias)

    def _fold_expression(self, weight: torch.Tensor, bias: torch.Tensor) -> None:
        head, hits = self.head, self.hits
        columns = head.num_drums * len(head.bins)
        self.num_classes = num_classes = 1 + max(head.bins.values())
        biases = bias + head.expression_bias.weight  # (patterns, drums * bins of each)
        weights, tables, start = [], [], 0
        for bins in head.bins.values():
            part = slice(start, start + head.num_drums * bins)
            padding = (1, num_classes - 1 - bins)  # silence first
            each = weight[part].unflatten(0, (head.num_drums, bins))
            weights.append(F.pad(each, (0, 0, *padding)))
            each = biases[:, part].unflatten(1, (head.num_drums, bins))
            each = F.pad(each, padding, value=-torch.inf)
            silence = F.pad(each.new_zeros(()).expand(1), (0, num_classes - 1), value=-torch.inf)
            tables.append(torch.where(hits[..., None] > 0, each, silence))
            start = part.stop
        # Classes come before columns: a softmax over a short last dimension is slow.
        weights = torch.cat(weights).transpose(0, 1).flatten(0, 1)
        self.expression_weight = nn.Buffer(weights.T.contiguous())
        self.expression_table = nn.Buffer(torch.cat(tables, 1).transpose(1, 2).contiguous())
        last = torch.tensor(list(head.bins.values()), device=weight.device)
        self.last_class = nn.Buffer(last.repeat_interleave(head.num_drums))
        every_class = torch.arange(num_classes, device=weight.device)[:, None]
        frames = F.pad(every_class.expand(-1, columns), (1, 0))
        self.values = nn.Buffer(head.features(frames)[:, head.num_drums :].contiguous())

    def frame_gates(self, frame: torch.Tensor) -> torch.Tensor:
        return F.embedding(frame[:, 0] % len(self.pattern_gates), self.pattern_gates)

    def dense_features(self, features: torch.Tensor, dtype: torch.dtype) -> list[torch.Tensor]:
        return [features[:, self.head.num_drums :].to(dtype)]

    def draw(
        self,
        hidden: torch.Tensor,
        temperature: Temperature,
        uniform: torch.Tensor,
        fixed: FixedDrums | None,
    ) -> tuple[torch.Tensor, torch.Tensor]:
        logits = torch.addmm(self.pattern_bias, hidden, self.pattern_weight)
        if fixed is not None:
            logits = self.head.rule_out(logits, fixed)
        patterns = _draw_class(logits, temperature, uniform[:, 0])
        hits = F.embedding(patterns, self.hits)
        if not self.head.bins:
            return patterns[:, None], hits
        logits = (hidden @ self.expression_weight).unflatten(1, (self.num_classes, -1))
        logits = logits + self.expression_table[patterns]
        classes = _draw_ordinal(logits, temperature, uniform[:, 1:])
        classes = torch.minimum(classes, self.last_class)
        if fixed is not None:
            classes = self.head.keep_expression(classes, fixed)
        features = torch.cat([hits, self.values.gather(0, classes)], 1)
        return torch.cat([patterns[:, None], classes], 1), features


def _draw_class(
    logits: torch.Tensor, temperature: Temperature, uniform: torch.Tensor
) -> torch.Tensor:
    """A class by `sample_classes` from (batch, classes): (batch,)."""
    if isinstance(temperature, float | int):
        return logits.argmax(1) if temperature == 0 else _count(logits, uniform, temperature)
    greedy = temperature == 0
    drawn = _count(logits / torch.where(greedy, 1.0, temperature), uniform)
    return torch.where(greedy, logits.argmax(1), drawn)


def _draw_ordinal(
    logits: torch.Tensor, temperature: Temperature, uniform: torch.Tensor
) -> torch.Tensor:
    """Classes from (batch, classes, columns), the median at temperature 0: (batch, columns)."""
    if isinstance(temperature, float | int):
        if temperature == 0:
            return _count(logits, torch.full_like(uniform, 0.5))
        return _count(logits, uniform, temperature)
    greedy = temperature == 0
    logits = logits / torch.where(greedy, 1.0, temperature)
    return _count(logits, torch.where(greedy, 0.5, uniform))


def _count(logits: torch.Tensor, uniform: torch.Tensor, temperature: float = 1.0) -> torch.Tensor:
    """The class on dimension 1 that a uniform number picks: how many cumulative probabilities it
    reaches. ONNX has no `searchsorted`."""
    if temperature != 1:
        logits = logits / temperature
    cumulative = torch.softmax(logits, 1).cumsum(1)
    drawn = (cumulative <= uniform[:, None] * cumulative[:, -1:]).sum(1)
    return drawn.clamp(max=logits.shape[1] - 1)
