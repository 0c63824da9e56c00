"""``python -m liverjax``: the command ``liverjax`` where its script is not on the path."""

import sys

from liverjax.commands.dispatch import main

sys.exit(main())
