"""What is private to other libraries, or true of certain versions of them, in one place.

Each part says why it is needed and what happens when a library no longer has it. `tests/test_compat.py` tests each.
"""


def sync_variables(model):
    """Bring a model's variables up to date in the midst of an epoch.

    On JAX Keras keeps the values of an epoch under way elsewhere and writes them into the variables at its end. The
    method that its own callbacks call before they save is not documented. A version without it has nothing to write.
    """
    if hasattr(model, "jax_state_sync"):
        model.jax_state_sync()
