"""The engine builder: `build_engine` for one graph, `build_bundle` for all that a session needs."""

from wanedge_export.build.bundle import BuildResult, Built, build_bundle
from wanedge_export.build.engine import BuiltEngine, build_engine, parse_network
from wanedge_export.build.error import BuildError
from wanedge_export.build.options import BuildOptions
from wanedge_export.build.profiles import block_profiles

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
