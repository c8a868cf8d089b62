"""The paper's gradient descent and its schedule (section 5)."""

import math
from typing import Any

import keras
from keras import ops

from alexnet._compat import variable_index
from alexnet.ops import momentum_step

_PLAIN = ((1.0, 1.0), (1.0, 0.0))


def update_factors(network):
    """The factors of a `Network`'s layers as `SGD` takes them."""
    return {layer.name: (layer.learning_rate_factors, layer.decay_factors) for layer in network.weighted}


@keras.saving.register_keras_serializable(package="alexnet")
class SGD(keras.optimizers.SGD):
    """Gradient descent with the paper's momentum and weight decay (section 5).

        v <- momentum * v - learning_rate * (gradient + decay * w)
        w <- w + v

    The decay is inside the momentum, an L2 penalty of `decay / 2`; Keras's `weight_decay` is a different rule. Unless
    `factors` says so, biases do not decay.

    Args:
        learning_rate: Step size, > 0.
        momentum: Share of the last step that is kept, in [0, 1).
        decay: Weight decay, >= 0.
        factors: By layer name, factors of the learning rate and of the decay for its kernel and for its bias,
            `{"conv1": ((1.0, 2.0), (1.0, 0.0))}`, as `update_factors` makes them of a network. Layers that are not
            in it have `((1.0, 1.0), (1.0, 0.0))`.

    Raises:
        ValueError: `nesterov` is set; `keras.optimizers.SGD` has it.
    """

    def __init__(
        self,
        learning_rate: float = 0.01,
        momentum: float = 0.9,
        decay: float = 0.0005,
        factors: dict[str, tuple] | None = None,
        name: str = "sgd",
        **kwargs: Any,
    ):
        super().__init__(learning_rate, momentum, name=name, **kwargs)
        if self.nesterov:
            raise ValueError("nesterov: the paper's rule has no such step. Received: nesterov=True")
        self.decay = decay
        self.factors = dict(factors or {})

    def build(self, variables):
        super().build(variables)
        self._paths = [variable.path for variable in variables]

    def factors_of(self, variable):
        """Factors of the learning rate and of the decay of one variable."""
        known = hasattr(variable, "path")  # TensorFlow's own variables, which its steps receive, do not have it
        path = (variable.path if known else self._paths[variable_index(self, variable)]).split("/")
        is_bias = path[-1] == "bias" or len(variable.shape) < 2
        rates, decays = self.factors.get(path[-2] if len(path) > 1 else None, _PLAIN)
        return rates[is_bias], decays[is_bias]

    def update_step(self, gradient, variable, learning_rate):
        gradient, learning_rate = (ops.cast(value, variable.dtype) for value in (gradient, learning_rate))
        rate_factor, decay_factor = self.factors_of(variable)
        decay = self.decay * decay_factor
        if rate_factor != 1:
            learning_rate = learning_rate * rate_factor
        if self.momentum:
            velocity = self.momentums[variable_index(self, variable)]
            momentum_step(variable, velocity, gradient, learning_rate, self.momentum, decay)
        else:
            super().update_step(gradient + decay * variable, variable, learning_rate)

    def get_config(self) -> dict[str, Any]:
        return {**super().get_config(), "decay": self.decay, "factors": self.factors}


class ReduceLROnPlateau(keras.callbacks.ReduceLROnPlateau):
    """The paper's schedule: the learning rate is divided by 10 when validation stalls, at most three times.

    Validation stalls when its top-1 has not risen by more than its standard error: a smaller rise may be chance.

    Args:
        patience: Epochs without such a rise before a reduction.
        images: How many validation images there are.
        reductions: How many there are at most.
    """

    def __init__(self, patience: int, images: int, reductions: int = 3):
        super().__init__("val_top1", factor=0.1, patience=patience, mode="max", min_delta=0.0)
        self.images = images
        self.left = reductions
        self.best = 0.0
        self.monitor_op = self._has_risen

    def _has_risen(self, top1, best):
        return top1 > best + math.sqrt(best * (1 - best) / self.images)

    @property
    def state(self) -> dict[str, Any]:
        """The part of it that a saved run keeps, as JSON."""
        return {"best": self.best, "waited": self.wait, "left": self.left}

    @state.setter
    def state(self, state: dict[str, Any]) -> None:
        self.best, self.wait, self.left = state["best"], state["waited"], state["left"]

    def on_train_begin(self, logs=None):
        """Unlike Keras's, does not reset: a resumed run keeps waiting."""

    def on_epoch_end(self, epoch, logs=None):
        if not self.left:
            return
        before = self._rate()
        super().on_epoch_end(epoch, logs)
        self.left -= self._rate() < before

    def _rate(self):
        return float(ops.convert_to_numpy(self.model.optimizer.learning_rate))
