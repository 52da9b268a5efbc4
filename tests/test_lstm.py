"""The LSTMs of conductor and decoder equal `nn.LSTM`, all steps at once and one by one."""

import pytest
import torch
import torch.nn.functional as F

from modeling_musicvae.lstm import DecoderLSTM, LSTMRecurrence, LSTMStepper, UnrolledLSTM

NUM_PATTERNS, CONTEXT_SIZE, HIDDEN_SIZE = 8, 5, 6
STEPS, BATCH = 7, 4
NAMES = ("previous", "context", "hidden", "cell")
all_layers = pytest.mark.parametrize("num_layers", [1, 2, 3])


def random_lstm(num_layers: int = 2, dtype: torch.dtype = torch.float32) -> DecoderLSTM:
    torch.manual_seed(0)
    return DecoderLSTM(NUM_PATTERNS, CONTEXT_SIZE, HIDDEN_SIZE, num_layers).to(dtype)


def random_inputs(num_layers: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """What `forward` reads, as in `NAMES`: every pattern occurs, and so does none."""
    torch.manual_seed(1)
    previous = torch.randperm(STEPS * BATCH).reshape(STEPS, BATCH) % (NUM_PATTERNS + 1)
    state_shape = (num_layers, BATCH, HIDDEN_SIZE)
    floats = (torch.randn(BATCH, CONTEXT_SIZE), torch.randn(state_shape), torch.randn(state_shape))
    return [previous, *(tensor.to(dtype).requires_grad_() for tensor in floats)]


def outputs_and_gradients(
    forward, lstm: DecoderLSTM, inputs: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The outputs, and the gradient of a random projection of them by everything that has one."""
    previous, context, hidden, cell = inputs
    outputs = forward(previous, context, (hidden, cell))
    torch.manual_seed(2)
    loss = (outputs.float() * torch.randn(outputs.shape)).sum()
    wanted = dict(lstm.named_parameters()) | dict(zip(NAMES[1:], inputs[1:], strict=True))
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    return {"outputs": outputs, **dict(zip(wanted, gradients, strict=True))}


def nn_lstm(lstm: torch.nn.LSTM):
    """PyTorch's own forward pass with the weights of `lstm`, over one-hot patterns and context."""

    def forward(previous, context, state):
        patterns = F.pad(torch.eye(NUM_PATTERNS, dtype=context.dtype), (0, 0, 0, 1))
        inputs = torch.cat([patterns[previous], context.expand(STEPS, -1, -1)], -1)
        return torch.nn.LSTM.forward(lstm, inputs, state)[0]

    return forward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize("form", ["forward", "forward_one_hot"])
@all_layers
def test_outputs_and_gradients_are_those_of_nn_lstm(num_layers, form, dtype):
    lstm, inputs = random_lstm(num_layers, dtype), random_inputs(num_layers, dtype)
    actual = outputs_and_gradients(getattr(lstm, form), lstm, inputs)
    expected = outputs_and_gradients(nn_lstm(lstm), lstm, inputs)
    tolerance = 1e-12 if dtype == torch.float64 else 1e-5
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=tolerance)


@all_layers
def test_an_lstm_over_dense_inputs_is_nn_lstm(num_layers):
    torch.manual_seed(0)
    lstm = UnrolledLSTM(CONTEXT_SIZE, HIDDEN_SIZE, num_layers).double()
    inputs = torch.randn(STEPS, BATCH, CONTEXT_SIZE).double()
    state = tuple(torch.randn(2, num_layers, BATCH, HIDDEN_SIZE).double())
    expected = torch.nn.LSTM.forward(lstm, inputs, state)[0]
    torch.testing.assert_close(lstm(inputs, state), expected, atol=1e-12, rtol=1e-12)


def test_the_gradient_of_the_recurrence_is_its_numerical_derivative():
    steps, batch, size = 4, 2, 3
    torch.manual_seed(0)
    shapes = [(steps, batch, 4 * size), (4 * size, size), (batch, size), (batch, size)]
    inputs = [torch.randn(shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(LSTMRecurrence.apply, inputs)


@all_layers
def test_steps_one_by_one_give_the_same_outputs(num_layers):
    lstm, inputs = random_lstm(num_layers, torch.float64), random_inputs(num_layers, torch.float64)
    previous, context, hidden, cell = inputs
    expected = lstm(previous, context, (hidden, cell))
    with torch.no_grad():
        gates = lstm.pattern_gates()[previous] + lstm.context_gates(context)
        stepper = LSTMStepper(lstm, len(context))
        for _ in range(2):  # it starts anew
            stepper.start((hidden, cell))
            outputs = [stepper.step(step_gates).clone() for step_gates in gates]
            torch.testing.assert_close(torch.stack(outputs), expected, atol=1e-12, rtol=1e-12)


def test_no_pattern_reads_as_a_row_of_zeros():
    assert torch.equal(random_lstm().pattern_gates()[NUM_PATTERNS], torch.zeros(4 * HIDDEN_SIZE))


def test_inputs_are_not_written_to():
    lstm, inputs = random_lstm(), random_inputs()
    before = [tensor.detach().clone() for tensor in inputs]
    outputs_and_gradients(lstm.forward, lstm, inputs)
    torch.testing.assert_close([tensor.detach() for tensor in inputs], before, atol=0, rtol=0)


def assert_close_in_bfloat16(actual: dict, expected: dict):
    """Within a few units in the last of bfloat16's eight binary places, of the largest value."""
    for name, tensor in expected.items():
        error = (actual[name].float() - tensor).abs().max() / tensor.abs().max()
        assert error < 8 * 2**-8, name


def test_bfloat16_autocast_is_close_to_float32_and_keeps_its_gradients_in_it():
    lstm, inputs = random_lstm(), random_inputs()
    expected = outputs_and_gradients(lstm.forward, lstm, inputs)

    def forward(*args):
        with torch.autocast("cpu", torch.bfloat16):
            return lstm(*args)

    autocast = outputs_and_gradients(forward, lstm, inputs)
    dtypes = {name: tensor.dtype for name, tensor in autocast.items()}
    assert dtypes.pop("outputs") == torch.bfloat16
    assert set(dtypes.values()) == {torch.float32}
    assert_close_in_bfloat16(autocast, expected)


def test_bfloat16_parameters_give_nearly_the_numbers_of_float32():
    lstm, inputs = random_lstm(dtype=torch.bfloat16), random_inputs(dtype=torch.bfloat16)
    rounded = outputs_and_gradients(lstm.forward, lstm, inputs)
    assert {tensor.dtype for tensor in rounded.values()} == {torch.bfloat16}
    lstm = lstm.float()
    inputs = [inputs[0], *(tensor.detach().float().requires_grad_() for tensor in inputs[1:])]
    assert_close_in_bfloat16(rounded, outputs_and_gradients(lstm.forward, lstm, inputs))
