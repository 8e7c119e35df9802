"""graphflops inside a compiler: costs on nodes, a backend, hooks of the partitioner and Inductor.

In: graphs as Dynamo, AOTAutograd and Inductor hand them over. Out: reports, records in
``node.meta``, weights for torch's own schedulers, cuts into pipeline stages. May import
``counting``, ``reports``, ``analysis``, ``capture`` and everything below them.
"""

from graphflops.compiler.annotation import AnnotatePass, annotate
from graphflops.compiler.compiled_graphs import CompiledGraph
from graphflops.compiler.counting_backend import CountingBackend, backend
from graphflops.compiler.estimators import FlopsEstimator, OverlapEstimator, TimeEstimator
from graphflops.compiler.pass_costs import PassCost, PassLog, log_passes
from graphflops.compiler.pipeline_split import split_policy
from graphflops.compiler.roofline import Roofline
from graphflops.compiler.torch_hooks import install, uninstall
from graphflops.compiler.watching import Event, Watch, watch

__all__ = [
    "AnnotatePass",
    "CompiledGraph",
    "CountingBackend",
    "Event",
    "FlopsEstimator",
    "OverlapEstimator",
    "PassCost",
    "PassLog",
    "Roofline",
    "TimeEstimator",
    "Watch",
    "annotate",
    "backend",
    "install",
    "log_passes",
    "split_policy",
    "uninstall",
    "watch",
]
