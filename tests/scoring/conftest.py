"""Settings of the tests of scores."""

import hypothesis

# A busy machine makes single examples slow; that is no failure.
hypothesis.settings.register_profile("no deadline", deadline=None)
hypothesis.settings.load_profile("no deadline")
