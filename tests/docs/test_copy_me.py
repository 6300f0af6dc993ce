"""The file of a strategy of one's own that is there to be copied passes its own tests."""

from docs.examples.test_my_strategy import *  # noqa: F403
