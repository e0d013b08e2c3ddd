"""Build TensorRT-RTX engines for a GPU that this machine does not have, and put them into the bundle.

    wanedge export tiny --precision both -o kiosk.wanedge
    python samples/build_an_engine.py kiosk.wanedge --target rtx-40

Prints one line for each engine (component, size, seconds) and the new variant's name. Engines are built here and run
on the device. Needs the extra engines.
"""

import argparse

from wanedge.bundle import Bundle
from wanedge_export.engines.bundle import build_bundle
from wanedge_runtimes.doctor import collect, machine_of
from wanedge_runtimes.targets import target_named


def main() -> None:
    """Build every graph that a session needs."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("--target", default="rtx-40", help="a name of `wanedge targets`")
    parser.add_argument("--precision", default="fp16")
    arguments = parser.parse_args()
    result = build_bundle(
        Bundle.open(arguments.bundle),
        target_named(arguments.target),
        arguments.precision,
        machine_of(collect()),
        cpu_only=True,
    )
    for built in result.built:
        print(f"{built.component:20} {built.engine_bytes / 2**20:6.2f} MiB {built.seconds:6.1f} s")
    print(f"variant {arguments.target}-{arguments.precision} of {arguments.bundle}")


if __name__ == "__main__":
    main()
