"""`kaggle`."""

from alexnet.cli.common import BAD_USAGE, FAILED, fail, output_path, params_file
from alexnet.recipe import read_yaml


def kaggle(options):
    from alexnet.hosting import HostingError, KernelOptions, repository, write_kernel

    values = {}
    for path in options.params:
        values.update(read_yaml(params_file(path)))
    values.update(options.set)
    folder = output_path(options.folder)
    asked = KernelOptions(
        options.user,
        title=options.title,
        gpu=options.gpu,
        internet=options.internet,
        public=options.public,
        **{kind: tuple(getattr(options, kind)) for kind in ("data", "competition", "kernel", "model")},
    )
    try:
        content = write_kernel(options.notebook, folder, asked, values, repository())
    except HostingError as error:
        return fail(error, BAD_USAGE)
    except OSError as error:
        return fail(f"{folder} cannot be written ({error.strerror or error}).", FAILED)
    file = folder / content["code_file"]
    print(f"{file}: {file.stat().st_size / 1000:.0f} kB, with the package in it; Colab opens it as well")
    print(f"Push it to https://www.kaggle.com/code/{content['id']} with: kaggle kernels push -p {options.folder}")
    return 0
