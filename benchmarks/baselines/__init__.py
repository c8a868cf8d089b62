"""AlexNet as each framework's users write it, and the package's own beside it; one interface for all."""
