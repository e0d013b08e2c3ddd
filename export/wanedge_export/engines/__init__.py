"""TensorRT engines: `builder.build_engine` for one graph, `bundle.build_bundle` for all that a session needs.

This file imports nothing, because a building process imports this package and must import nothing else (see `worker`).

    bundle.py        lint, estimate and build every graph, and write the engines into a bundle
    builder.py       one engine: options, compilation, and the checks against the spec
    isolated.py      one engine in a process of its own; reproducible.py: the same addresses in every such process
    parallel.py      several engines at the same time, as many as fit into memory
    sizing.py        block sizes (optimization profiles) and memory that a build needs
    probe.py         does TensorRT-RTX build this graph at all?
    worker/          what the building process runs
"""
