"""The LSTMs of conductor and decoder equal `nn.LSTM`, all steps at once and one by one."""

import pytest
import torch

from modeling_musicvae.lstm import DecoderLSTM, LSTMRecurrence, UnrolledLSTM

INPUT_SIZE, CONTEXT_SIZE, HIDDEN_SIZE = 8, 5, 6
STEPS, BATCH = 7, 4
NAMES = ("inputs", "context", "hidden", "cell")
all_layers = pytest.mark.parametrize("num_layers", [1, 2, 3])


def random_lstm(num_layers: int = 2, dtype: torch.dtype = torch.float32) -> DecoderLSTM:
    torch.manual_seed(0)
    return DecoderLSTM(INPUT_SIZE, CONTEXT_SIZE, HIDDEN_SIZE, num_layers).to(dtype)


def random_inputs(num_layers: int = 2, dtype: torch.dtype = torch.float32) -> list[torch.Tensor]:
    """The arguments of `forward`, as in `NAMES`."""
    torch.manual_seed(1)
    state_shape = (num_layers, BATCH, HIDDEN_SIZE)
    shapes = [(STEPS, BATCH, INPUT_SIZE), (BATCH, CONTEXT_SIZE), state_shape, state_shape]
    return [torch.randn(shape).to(dtype).requires_grad_() for shape in shapes]


def outputs_and_gradients(
    forward, lstm: DecoderLSTM, inputs: list[torch.Tensor]
) -> dict[str, torch.Tensor]:
    """The outputs, and the gradient of a random projection of them by everything that has one."""
    read, context, hidden, cell = inputs
    outputs = forward(read, context, (hidden, cell))
    torch.manual_seed(2)
    loss = (outputs.float() * torch.randn(outputs.shape)).sum()
    wanted = dict(lstm.named_parameters()) | dict(zip(NAMES, inputs, strict=True))
    gradients = torch.autograd.grad(loss, list(wanted.values()))
    return {"outputs": outputs, **dict(zip(wanted, gradients, strict=True))}


def nn_lstm(lstm: DecoderLSTM):
    """PyTorch's own forward pass with the weights of `lstm`, over inputs next to the context."""

    def forward(inputs, context, state):
        inputs = torch.cat([inputs, context.expand(STEPS, -1, -1)], -1)
        return torch.nn.LSTM.forward(lstm, inputs, state)[0]

    return forward


def input_gates(lstm: DecoderLSTM, inputs, context):
    return inputs @ lstm.input_weight()[:INPUT_SIZE] + lstm.context_gates(context)


def from_input_gates(lstm: DecoderLSTM):
    def forward(inputs, context, state):
        return lstm.unroll(input_gates(lstm, inputs, context), state)

    return forward


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32], ids=["float64", "float32"])
@pytest.mark.parametrize(
    "form", [lambda lstm: lstm.forward, from_input_gates], ids=["forward", "from input gates"]
)
@all_layers
def test_outputs_and_gradients_are_those_of_nn_lstm(num_layers, form, dtype):
    lstm, inputs = random_lstm(num_layers, dtype), random_inputs(num_layers, dtype)
    actual = outputs_and_gradients(form(lstm), lstm, inputs)
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


def test_the_last_row_of_the_input_weight_adds_nothing():
    weight = random_lstm().input_weight()
    assert weight.shape == (INPUT_SIZE + 1, 4 * HIDDEN_SIZE)
    assert weight[-1].count_nonzero() == 0


def test_inputs_are_not_written_to():
    lstm, inputs = random_lstm(), random_inputs()
    before = [tensor.detach().clone() for tensor in inputs]
    outputs_and_gradients(lstm.forward, lstm, inputs)
    torch.testing.assert_close([tensor.detach() for tensor in inputs], before, atol=0, rtol=0)


def test_inputs_of_another_dtype_are_read_in_that_of_the_weights():
    lstm = random_lstm(dtype=torch.bfloat16)
    inputs, context, *state = random_inputs(dtype=torch.bfloat16)
    expected = lstm(inputs, context, state)
    assert torch.equal(lstm(inputs.float(), context, state), expected)


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
    inputs = [tensor.detach().float().requires_grad_() for tensor in inputs]
    assert_close_in_bfloat16(rounded, outputs_and_gradients(lstm.forward, lstm, inputs))
