"""The package's own network, with training and inference as the package does them, and its LRN alone."""

import alexnet

keras = alexnet.import_keras()
alexnet.tune_process()

from alexnet.training import build_model, compile_model  # noqa: E402
from alexnet.training.callbacks import TrimMemory  # noqa: E402
from benchmarks.baselines.fitting import fit  # noqa: E402

CANDIDATES = ("ours",)
NORMALIZATIONS = ("ours", "ours XLA") if keras.backend.backend() == "tensorflow" else ("ours",)


class Network:
    """The network of `alexnet.train`, compiled in the same way."""

    def __init__(self, candidate, image_size=227, width=1.0, classes=1000, dropout=0.5, learning_rate=0.01):
        sizes = {"resize": image_size, "image_size": image_size, "width": width}
        recipe = alexnet.Recipe(**sizes, initializer="paper", dropout=dropout, learning_rate=learning_rate)
        self.model = build_model(recipe, classes)
        self.training_model = compile_model(self.model, recipe)
        self.release = TrimMemory()

    def batch(self, images, labels):
        return images, labels

    def train(self, batch, steps):
        """Make `steps` steps on a batch; returns their mean loss and their seconds."""
        return fit(self.training_model, batch, steps, [self.release])

    def predict(self, batch):
        """Probabilities `(batch, classes)` as NumPy."""
        return self.model.predict_on_batch(batch[0])

    def set_weights(self, weights):
        """Kernels and biases, NumPy, by layer."""
        for name, arrays in weights.items():
            self.model.get_layer(name).set_weights(arrays)


def normalization(candidate, activations, above):
    """The package's layer alone, differentiated by each framework itself.

    Takes activations and a gradient from above, NumPy `(batch, rows, columns, channels)`. Returns a function without
    arguments, which returns the normalized activations and the gradient below.
    """
    norm = alexnet.LocalResponseNormalization(data_format="channels_last")
    norm.build(activations.shape)
    if keras.backend.backend() == "torch":
        import torch

        from benchmarks.baselines.plain_torch import DEVICE, wait_for

        x, above = (torch.from_numpy(array).to(DEVICE) for array in (activations, above))
        x.requires_grad_()

        def run():
            output = norm(x)
            return wait_for(output, *torch.autograd.grad(output, x, above))

        return run
    if keras.backend.backend() == "jax":
        import jax

        @jax.jit
        def pulled(x, above):
            output, pull = jax.vjp(norm, x)
            return output, *pull(above)

        tensors = jax.device_put((activations, above))
        return lambda: jax.block_until_ready(pulled(*tensors))
    import tensorflow as tf

    def both(x, above):
        with tf.GradientTape() as tape:
            tape.watch(x)
            output = norm(x)
        return output, tape.gradient(output, x, above)

    if candidate == "ours XLA":
        both = tf.function(both, jit_compile=True)
    x, above = tf.constant(activations), tf.constant(above)
    return lambda: both(x, above)
