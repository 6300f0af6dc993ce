"""Published objectives as programs: each a few lines that read as its equation. A user's own is not second class."""

from ppvi.objectives.elbo import elbo as elbo
from ppvi.objectives.multi_sample import iwelbo as iwelbo, renyi as renyi
