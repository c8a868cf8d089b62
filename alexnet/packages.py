"""Packages that only a part of the work needs, and what to say where one is missing."""

# Where the name to install is not the name to import.
_INSTALLED_AS = {
    "PIL": "pillow",
    "array_record": "array-record",
    "cv2": "opencv-python-headless",
    "google": "protobuf",
    "yaml": "pyyaml",
}


def missing(error):
    """One sentence about a package that could not be imported.

    Args:
        error: A `ModuleNotFoundError`.
    """
    module = (error.name or "").partition(".")[0]
    package = _INSTALLED_AS.get(module, module)
    return f"the package {package} is not installed here. Install it with: pip install {package}"
