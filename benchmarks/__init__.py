"""Benchmarks and their results. They need a clone of the project: the installed package does not include them."""
