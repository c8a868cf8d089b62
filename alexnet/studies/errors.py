"""What all of a batch's files raise."""


class BatchError(ValueError):
    """A batch that cannot start; the message is one sentence. Nothing has been run."""


class MirrorError(OSError):
    """What lies at a URL cannot be read or written; one sentence."""
