"""Networks whose blocks have levels, of which a selector chooses for every image."""

from trainers.methods.elastic.choices import measure_choices
from trainers.methods.elastic.export import ChosenPerImage, export_chosen
from trainers.methods.elastic.networks import ElasticNetworks, ElasticPart
from trainers.methods.elastic.plan import SelectorSettings, elastic_plan
from trainers.methods.elastic.run import ElasticPhase, ElasticRun, draws_of

__all__ = [
    "ChosenPerImage",
    "ElasticNetworks",
    "ElasticPart",
    "ElasticPhase",
    "ElasticRun",
    "SelectorSettings",
    "draws_of",
    "elastic_plan",
    "export_chosen",
    "measure_choices",
]
