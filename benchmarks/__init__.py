"""What is measured, and its results. It needs a clone of the project: the installed package has none of it."""
