"""Ways to train one network, or several, for many tasks: virtual networks and their rivals.

A new method is one file and one line of `METHODS`, which drives the config, the command line's
help and the tests alike. All train everything, from the images on, with the same steps; from
scratch unless the backbone has weights to begin with.
"""

from trainers.methods.adapters import plan_residual_adapters
from trainers.methods.auto_virtualnet import AutoVirtualnetSettings, plan_auto_virtualnet
from trainers.methods.cross_stitch import CrossStitchSettings, plan_cross_stitch
from trainers.methods.den import DenSettings, plan_den
from trainers.methods.dvn import DvnSettings, plan_dvn
from trainers.methods.elastic import ChosenPerImage, ElasticNetworks, export_chosen
from trainers.methods.feature_extraction import DaCnnSettings, plan_da_cnn, plan_feature_extraction
from trainers.methods.feature_partitioning import PartitioningSettings, plan_feature_partitioning
from trainers.methods.nested_net import (
    NestedBudgetsSettings,
    NestedNetSettings,
    plan_nested_net,
    plan_nested_net_budgets,
)
from trainers.methods.networks import Part, SharedNetworks
from trainers.methods.packnet import PacknetSettings, plan_packnet, plan_packnet_grouped
from trainers.methods.phase_files import load_parts
from trainers.methods.plan import Method, Phase, Plan, Problem
from trainers.methods.routing import RoutingSettings, plan_routing
from trainers.methods.sequential import plan_dvn_sequential, plan_lwf, plan_nested_sequential
from trainers.methods.single import NoSettings, plan_shared, plan_single
from trainers.methods.standing_alone import alone
from trainers.methods.surgery import SurgerySettings, plan_gradient_surgery
from trainers.methods.training import MethodResult, make_networks, phase_digests, train_method

METHODS: dict[str, Method] = {
    "single": Method(
        settings=NoSettings, build=plan_single, summary="a network of its own for each task"
    ),
    "shared": Method(
        settings=NoSettings,
        build=plan_shared,
        summary="one network for all; norms and heads apart",
    ),
    "feature_partitioning": Method(
        settings=PartitioningSettings,
        build=plan_feature_partitioning,
        summary="masks of a sharing matrix, or of a study's candidate",
    ),
    "dvn": Method(
        settings=DvnSettings,
        build=plan_dvn,
        summary="deep virtual networks: several sizes per task, units in an order of its own",
    ),
    "nested_net": Method(
        settings=NestedNetSettings,
        build=plan_nested_net,
        summary="NestedNet: each task has one unit more than the one before",
    ),
    "nested_net_budgets": Method(
        settings=NestedBudgetsSettings,
        build=plan_nested_net_budgets,
        summary="NestedNet for budgets: a network of several sizes for each task",
    ),
    "packnet": Method(
        settings=PacknetSettings,
        build=plan_packnet,
        summary="PackNet: tasks in turn, in weights that those before have left",
    ),
    "packnet_grouped": Method(
        settings=NestedNetSettings,
        build=plan_packnet_grouped,
        summary="PackNet+: the same with groups of channels, so that networks are small",
    ),
    "residual_adapters": Method(
        settings=NoSettings,
        build=plan_residual_adapters,
        summary="one network with small convolutions of each task's own beside its own",
    ),
    "gradient_surgery": Method(
        settings=SurgerySettings,
        build=plan_gradient_surgery,
        summary="one network, conflicts of the tasks' gradients removed (PCGrad and others)",
    ),
    "cross_stitch": Method(
        settings=CrossStitchSettings,
        build=plan_cross_stitch,
        summary="a network for each task, their maps mixed behind every block",
    ),
    "routing": Method(
        settings=RoutingSettings,
        build=plan_routing,
        summary="blocks that are there several times, of which each task's router chooses",
    ),
    "dvn_sequential": Method(
        settings=DvnSettings,
        build=plan_dvn_sequential,
        summary="deep virtual networks for tasks that come one after another",
    ),
    "lwf": Method(
        settings=NoSettings,
        build=plan_lwf,
        summary="learning without forgetting: the same, with one size",
    ),
    "nested_sequential": Method(
        settings=NestedNetSettings,
        build=plan_nested_sequential,
        summary="NestedNet for tasks that come one after another",
    ),
    "feature_extraction": Method(
        settings=NoSettings,
        build=plan_feature_extraction,
        summary="the first task's network, frozen, and a head for each later task",
    ),
    "da_cnn": Method(
        settings=DaCnnSettings,
        build=plan_da_cnn,
        summary="the same, with fully connected layers before these heads",
    ),
    "den": Method(
        settings=DenSettings,
        build=plan_den,
        summary="deep elastic networks: a selector gives every image a level of each block",
    ),
    "auto_virtualnet": Method(
        settings=AutoVirtualnetSettings,
        build=plan_auto_virtualnet,
        summary="Auto-VirtualNet: the same for several budgets, tasks with orders of their own",
    ),
}

__all__ = [
    "METHODS",
    "ChosenPerImage",
    "ElasticNetworks",
    "Method",
    "MethodResult",
    "Part",
    "Phase",
    "Plan",
    "Problem",
    "SharedNetworks",
    "alone",
    "export_chosen",
    "load_parts",
    "make_networks",
    "phase_digests",
    "train_method",
]
