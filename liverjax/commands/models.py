"""List the models that come with the library, or print the card of one.

  liverjax models
  liverjax models any_liver

A card says what a model finds, what trained it, how it did on held-out scans (Dice of the liver per case), what it was
never tried on, its licence, and the commands that made it. Research use only.
"""

import json

from absl import flags

POSITIONAL = "name"


def define(values: flags.FlagValues) -> None:
    """Defines the command's flags."""
    flags.DEFINE_string(
        "name", None, "model whose card is printed (default: a list of all)", flag_values=values
    )
    flags.DEFINE_bool("json", False, "print JSON, for programs", flag_values=values)


def run(args: flags.FlagValues) -> None:
    """Runs the command."""
    from liverjax.config import to_dict
    from liverjax.pretrained import card, registry
    from liverjax.scoring.tables import aligned

    names = registry.NAMES if args.name is None else (args.name,)
    models = {name: registry.shipped_facts(name) for name in names}
    if args.json:
        listed = [
            {"name": name, "bytes": size, **facts, "config": to_dict(facts["config"])}
            for name, (facts, size) in models.items()
        ]
        print(json.dumps(listed if args.name is None else listed[0], indent=1))
        return
    if args.name is not None:
        print(card.text(args.name, *models[args.name]))
        return
    rows = [
        {
            "name": name,
            "finds": card.task(facts["config"]),
            "in": card.modality(facts["config"]),
            "size": f"{size / 1e6:.1f} MB",
            "licence": facts["licence"],
        }
        for name, (facts, size) in models.items()
    ]
    print(aligned(rows))
    for name, (facts, _) in models.items():
        print(f"\n{name}: Dice of the liver on held-out scans, mean (worst to best, cases)")
        print("\n".join(f"  {line}" for line in card.held_out(facts["card"])))
