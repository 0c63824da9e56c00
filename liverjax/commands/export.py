"""Write a model's networks for other programs.

  liverjax export --model=RUN --format=onnx -o FOLDER
  liverjax export --model=liver.safetensors --format=stablehlo -o FOLDER

Writes one file per network, from normalised slices to probabilities, and model.json, which describes every step before
and after the networks, with all its numbers. StableHLO needs the package flatbuffers (pip install flatbuffers), ONNX
the package onnx (pip install onnx).
"""

from absl import flags


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "model", None, "folder of a training run, bundle, or shipped model", flag_values=values
    )
    flags.DEFINE_enum("format", "stablehlo", ["stablehlo", "onnx"], "what to write", flag_values=values)
    flags.DEFINE_string("output", None, "folder to write to", short_name="o", flag_values=values)
    flags.DEFINE_enum(
        "ensemble", None, ["all", "best"], "of several restarts, what to write", flag_values=values
    )
    flags.DEFINE_bool("quiet", False, "print errors only", flag_values=values)
    flags.mark_flags_as_required(["model", "output"], flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.pretrained.export import export_model
    from liverjax.pretrained.load import load_model

    model = load_model(args.model).with_options(ensemble=args.ensemble)
    for file in export_model(model, args.output, args.format):
        if not args.quiet:
            print(file)
