"""The engine builder: `build_engine` for one graph, `build_bundle` for all that a session needs."""

from wanedge_export.build.bundle import BuildResult, Built, build_bundle
from wanedge_export.build.engine import BuiltEngine, build_engine
from wanedge_export.build.options import BuildOptions
from wanedge_export.build.profiles import block_profiles
from wanedge_export.compiler.compile import parse_network
from wanedge_export.compiler.error import BuildError

__all__ = [
    "BuildError",
    "BuildOptions",
    "BuildResult",
    "Built",
    "BuiltEngine",
    "block_profiles",
    "build_bundle",
    "build_engine",
    "parse_network",
]
