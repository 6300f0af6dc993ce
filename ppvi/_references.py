"""Whose ideas the library's objectives, strategies and methods are: names, and the keys of papers in `references.bib`."""

from __future__ import annotations

import functools
import re
from collections.abc import Mapping
from pathlib import Path

METHOD = ("becker2024", "lew2023")
"""Programmable variational inference, and the differentiation of expectations that it is built on."""

OBJECTIVES: Mapping[str, tuple[str, ...]] = {
    "alpha_divergence": ("hernandez2016",),
    "analytic_elbo": ("kingma2014",),
    "annealed": ("neal2001", "wu2020", "geffner2021annealing", "zhang2021"),
    "beta_elbo": ("higgins2017",),
    "chi_square": ("dieng2017",),
    "cubo": ("dieng2017",),
    "diwhvi": ("sobolev2019",),
    "dreg": ("tucker2019", "geffner2021alpha", "bauer2021"),
    "elbo": ("jordan1999", "kingma2014"),
    "f_divergence": ("ali1966", "csiszar1967", "wan2020"),
    "fivo": ("maddison2017filtering", "naesseth2018", "le2018"),
    "forward_chi_square": ("li2024",),
    "forward_kl": ("hinton1995", "le2017"),
    "hvi": ("ranganath2016",),
    "iwelbo": ("burda2016",),
    "iwhvi": ("sobolev2019",),
    "log_variance": ("richter2020",),
    "renyi": ("li2016",),
    "reweighted_wake_sleep": ("bornschein2015", "le2019"),
    "sivi": ("yin2018",),
    "stl": ("roeder2017",),
    "tempered_elbo": ("mandt2016",),
    "thermodynamic": ("masrani2019",),
    "variational_importance_sampling": ("li2024",),
    "vimco": ("mnih2016",),
    "vr_max": ("li2016",),
    "wake_phase_p": ("bornschein2015", "le2019"),
    "wake_phase_q": ("bornschein2015", "le2019"),
}

STRATEGIES: Mapping[str, tuple[str, ...]] = {
    "ARM": ("yin2019arm",),
    "ARSM": ("yin2019arsm",),
    "Antithetic": ("hammersley1956",),
    "BoundaryReparam": ("lee2018",),
    "DisARM": ("dong2020", "yin2020", "dong2021"),
    "Enumerate": ("lew2023",),
    "GumbelSoftmax": ("jang2017", "maddison2017concrete"),
    "LeaveOneOut": ("kool2019", "richter2020"),
    "LocalExpectation": ("titsias2015", "desmet2023"),
    "MeasureValued": ("heidergott2008", "mohamed2020", "rosca2019"),
    "NeuralBaseline": ("mnih2014",),
    "ParameterShift": ("mitarai2018", "schuld2019"),
    "Quadrature": ("trefethen2014",),
    "REBAR": ("tucker2017",),
    "RELAX": ("grathwohl2018",),
    "ReinMax": ("liu2023",),
    "Reinforce": ("williams1992", "schulman2015"),
    "Reparam": ("kingma2014", "rezende2014", "figurnov2018"),
    "RunningMean": ("mnih2014",),
    "StochasticPerturbation": ("gong1987", "arya2022"),
    "StraightThrough": ("bengio2013",),
    "Stratified": ("mckay1979",),
    "SumAndSample": ("liu2019",),
    "UnorderedSet": ("kool2020",),
}

OPTIMIZERS: Mapping[str, tuple[str, ...]] = {
    "BuresWasserstein": ("diao2023", "price1958"),
    "IVON": ("shen2024", "khan2018adam", "khan2017", "lin2020"),
    "Natural": ("amari1998", "hoffman2013", "khan2017", "khan2018", "lin2019", "salimbeni2018", "martens2020"),
    "Proximal": ("domke2020", "domke2023", "kim2023"),
}
"""Of `ppvi.optimizers`."""

METHODS: Mapping[str, tuple[str, ...]] = {
    "approximate": ("giordano2024", "kucukelbir2017"),
    "mixture": ("arimoto1972", "blahut1972"),
    "windows": ("torrie1977", "rue2009", "miller2017"),
    "non-centred": ("papaspiliopoulos2007",),
    "averages": ("dhaka2020", "welandawe2022"),
    "summed out": ("zhang1996", "obermeyer2019"),
}
"""What a fit does beside its gradient."""


@functools.cache
def entries() -> Mapping[str, str]:
    """The papers' BibTeX by their keys."""
    text = Path(__file__).with_name("references.bib").read_text(encoding="utf-8")
    found = (entry.strip() for entry in re.split(r"\n\n(?=@)", text))
    return {re.findall(r"@\w+\{(\w+),", entry)[0]: entry for entry in found}
