"""Look at scans, masks and uncertainty in a browser, on a page that this machine alone can open.

  liverjax view SCAN MASK.nii.gz MASK.nii.gz
  liverjax view PREDICTIONS --references=DATASET
  liverjax view SCORES

SCAN is a NIfTI file or a folder with a DICOM series. PREDICTIONS is what `liverjax predict -o PREDICTIONS` wrote (best
with --save_uncertainty), SCORES what `liverjax evaluate -o SCORES` wrote; the folder of a run shows the newest of both
within. The worst case comes first. Nothing comes from elsewhere. Ctrl-C ends it. Research use only.
"""

import contextlib
from typing import Any

from absl import flags

from liverjax.commands import reading, viewing

POSITIONAL = "show"
SEVERAL = True


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    on: dict[str, Any] = {"flag_values": values}
    flags.DEFINE_multi_string(
        "show", None, "a scan and masks of it, or a folder: predictions, scores, run", **on
    )
    flags.DEFINE_string("references", None, "of predictions: data set with masks that people drew", **on)
    reading.define(values)
    flags.DEFINE_integer("port", 0, "port of this machine; 0: any", lower_bound=0, upper_bound=65535, **on)
    flags.DEFINE_bool("browser", True, "open the page in a browser", **on)
    flags.mark_flags_as_required(["show"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command until it is interrupted."""
    import webbrowser

    from liverjax.errors import InputError
    from liverjax.files import local_path
    from liverjax.scans import dicom_files
    from liverjax.viewer import server, study

    first, *masks = (local_path(path, "--show") for path in args.show)
    choices = reading.reading(args)
    series = (
        first.is_dir()
        and not any((first / name).is_file() for name in ("manifest.json", "summary.json", "run.json"))
        and first in dicom_files.find_folders(first)
    )
    if masks or series or not first.is_dir():
        if args.references:
            raise InputError(
                "--references is for a folder of predictions; name the reference after the mask instead"
            )
        studies = [study.named_files(first, masks, choices)]
        studies[0].describe(
            studies[0].read_scan()
        )  # What cannot be shown is refused here, and not on the page.
    else:
        studies = viewing.studies(first, args.references, choices)
    served = server.start(studies, args.port)
    try:
        print(
            f"{len(studies)} case{'s' * (len(studies) != 1)} at {served.address} (Ctrl-C ends it)", flush=True
        )
        if args.browser:
            with contextlib.suppress(webbrowser.Error):
                webbrowser.open(served.address)
        served.ended.wait()
    finally:
        served.close()
