"""``pytest tests/unit/maelstrom -k "bytes or prints or cut" --hypothesis-profile=long`` tries the parser for minutes:
20,000 examples of each property.
"""

from hypothesis import settings

settings.register_profile("long", max_examples=20_000, deadline=None)
