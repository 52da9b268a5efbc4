"""The matrix products that training a MusicVAE of hits alone cannot do without."""

from typing import NamedTuple

from modeling_musicvae import MusicVAEConfig


class Product(NamedTuple):
    """`count` products of an (m, k) with a (k, n) matrix."""

    m: int
    k: int
    n: int
    count: int = 1

    @property
    def flops(self) -> int:
        return 2 * self.m * self.k * self.n * self.count


def linear_products(rows: int, inputs: int, outputs: int) -> list[Product]:
    """Of a linear layer: outputs, gradient of the inputs, gradient of the weight."""
    return [
        Product(rows, inputs, outputs),
        Product(rows, outputs, inputs),
        Product(outputs, rows, inputs),
    ]


def recurrence_products(batch: int, steps: int, size: int) -> list[Product]:
    """Of an LSTM's recurrent weight.

    A step needs the hidden state before it, so the gates, and on the way back the gradient of the
    hidden state, take one product a step. The gradient of the weight can wait for all steps.
    """
    return [
        Product(batch, size, 4 * size, steps),
        Product(batch, 4 * size, size, steps),
        Product(4 * size, batch * steps, size),
    ]


def decoding_products(
    batch: int, steps: int, context_size: int, size: int, num_layers: int
) -> list[Product]:
    """Of an LSTM whose first hidden and cell states are a linear map of a context."""
    initial_state = linear_products(batch, context_size, 2 * num_layers * size)
    recurrence = recurrence_products(batch, steps, size)
    between_layers = linear_products(batch * steps, size, 4 * size)
    return initial_state + num_layers * recurrence + (num_layers - 1) * between_layers


def matrix_products(config: MusicVAEConfig, batch_size: int) -> list[Product]:
    """Those of the forward and the backward pass that no cheaper way replaces.

    Left out are the encoder's narrow input, the conductor's silent one, the decoder's previous
    pattern, which is a row of the weight, and products with a state of zeros.
    """
    num_rows = batch_size * config.num_steps

    # Both directions start from zeros, so their first step takes no product.
    size, num_layers = config.encoder_hidden_size, config.encoder_num_layers
    recurrence = recurrence_products(batch_size, config.num_steps - 1, size)
    between_layers = linear_products(num_rows, 2 * size, 4 * size)
    mean_or_std = linear_products(batch_size, 2 * size, config.latent_size)
    products = 2 * (num_layers * recurrence + (num_layers - 1) * between_layers + mean_or_std)

    context_size = config.latent_size
    if config.decoder == "hierarchical":
        size, num_layers = config.conductor_hidden_size, config.conductor_num_layers
        products += decoding_products(batch_size, config.bars, context_size, size, num_layers)
        context_size = size

    # Segments run in parallel. What a context adds to the gates is the same at all of its steps.
    size, num_layers = config.decoder_hidden_size, config.decoder_num_layers
    num_contexts = batch_size * config.num_segments
    segment_steps = config.num_steps // config.num_segments
    products += decoding_products(num_contexts, segment_steps, context_size, size, num_layers)
    products += linear_products(num_contexts, context_size, 4 * size)
    if lookback_size := config.lookback_bars * config.num_drums:
        # Frames are data: of the look-back no gradient is taken, but of its weight.
        products.append(Product(num_rows, lookback_size, 4 * size))
        products.append(Product(lookback_size, num_rows, 4 * size))
    products += linear_products(num_rows, size, config.num_patterns)
    return products
