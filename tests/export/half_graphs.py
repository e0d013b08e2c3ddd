"""float16 graphs of the small bundle, converted from its float32 graphs: tracing them again would take a minute."""

from pathlib import Path

import onnx_ir as ir

from wanedge.bundle import Bundle, BundleWriter, GraphFiles, Variant
from wanedge_export.exporter.half import half_spec, to_half
from wanedge_runtimes.spec import GraphSpec


def half_bundle(bundle: Bundle, path: Path) -> Bundle:
    """`bundle` with the further variants fp16 and fp16-decomposed, at `path`."""
    contents = bundle.manifest.contents
    with BundleWriter.extend(bundle, path) as writer:
        for source in bundle.manifest.variants:
            name = source.name.replace("fp32", "fp16")
            graphs, specs = {}, dict[str, dict[str, GraphSpec]]()
            for component in source.graphs:
                file, spec = bundle.graph(component, source)
                model = ir.load(file)
                to_half(model, spec, ("mel", "spectrum"))
                relative = f"graphs/fp16/{component}.{source.profile}.onnx"
                data = f"{component}.{source.profile}.weights"
                ir.save(model, writer.directory("graphs/fp16") / Path(relative).name, external_data=data)
                known = (writer.directory("graphs/fp16") / data).exists()
                specs[component] = {f"{source.profile}-fp16": half_spec(spec)}
                graphs[component] = GraphFiles(
                    graph=relative, data=(f"graphs/fp16/{data}",) if known else (), spec=f"{source.profile}-fp16"
                )
            variant = Variant(
                name=name, precision="fp16", runtime="tensorrt", target="any", profile=source.profile, graphs=graphs
            )
            contents = contents.with_variant(variant, specs, contents.made)
        return writer.finish(contents)
