"""A local page that shows scans, masks and uncertainty. Needs the extra `liverjax[viewer]`.

Public, imported on first use:

    Study(name, scan, masks)          what is shown of a case: files, or volumes in memory
    read_folder(folder)               the cases of a folder that `liverjax predict` wrote
    start(studies)                    serves the page on this machine alone
    widget(study)                     the same volumes as a widget of a notebook
"""

from liverjax import lazy

__getattr__, __dir__, __all__ = lazy.attach(
    __name__,
    {"study": ("Study", "read_folder"), "server": ("start",), "notebook": ("widget",)},
)
