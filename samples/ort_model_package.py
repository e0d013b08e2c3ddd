"""Show a bundle to ONNX Runtime as one of its model packages, and run a component through that API.

    python samples/ort_model_package.py kiosk.wanedge kiosk.ortpackage

A view: two kinds of JSON files and links to the bundle's graphs and weights, in a folder that must not exist, on the
same disk. Tools that know model packages can open it. Prints a line for each component,
`backbone: fp32 (CPUExecutionProvider)`, and at last what one of them answered. Needs ONNX Runtime 1.32 and a bundle
that is a folder. Only ONNX Runtime's variants for the CPU are in the view; TensorRT's are not ONNX Runtime's.
"""

import argparse
import json
import os
from pathlib import Path

import numpy as np
import onnxruntime as ort

from wanedge import Bundle
from wanedge.bundle import GraphFiles, Manifest, Variant

PROVIDER = "CPUExecutionProvider"


def choose(manifest: Manifest) -> Variant:
    """The variant for the CPU: an INT8 one where there is one."""
    fit = [variant for variant in manifest.variants if variant.runtime == "onnxruntime" and variant.target == "cpu"]
    return min(fit, key=lambda variant: "int8" not in variant.precision)


def link(root: Path, folder: Path, files: GraphFiles) -> str:
    """Link a graph and its weights into `folder` under the names that they refer to each other by; the graph's name.

    Hard links: ONNX Runtime follows no symbolic link out of a package.
    """
    for relative in (files.graph, *files.data):
        target = folder / Path(relative).relative_to(Path(files.graph).parent)
        target.parent.mkdir(parents=True, exist_ok=True)
        os.link(root / relative, target)
    return Path(files.graph).name


def write_view(bundle: Bundle, view: Path) -> dict[str, str]:
    """Write the package; component -> name of its variant."""
    variant = choose(bundle.manifest)
    for component, files in variant.graphs.items():
        model = link(bundle.root, view / component / variant.name, files)
        executor = {"ort": {"model_file": model}}
        described = {"variants": {variant.name: {"ep": PROVIDER, "executor_info": executor}}}
        (view / component / "component.json").write_text(json.dumps(described, indent=2))
    package = {
        "schema_version": "1.0",
        "layout": "portable",
        "package_name": bundle.manifest.model.name,
        "package_version": bundle.manifest.made.wanedge,
        "components": {component: component for component in variant.graphs},
        "additional_metadata": {},
    }
    (view / "manifest.json").write_text(json.dumps(package, indent=2))
    return dict.fromkeys(variant.graphs, variant.name)


def run_component(package: "ort.ModelPackageContext", component: str) -> dict[str, tuple[int, ...]]:
    """Run a component on zeros; the shapes of what it answers. Free dimensions are 1."""
    options = ort.ModelPackageOptions(ort.SessionOptions())
    session = package.select_component(component, options).create_session()
    feeds = {}
    for value in session.get_inputs():
        shape = [size if isinstance(size, int) else 1 for size in value.shape]
        dtype = {"tensor(float)": np.float32, "tensor(int64)": np.int64, "tensor(uint8)": np.uint8}[value.type]
        feeds[value.name] = np.zeros(shape, dtype)
    names = [value.name for value in session.get_outputs()]
    return {name: array.shape for name, array in zip(names, session.run(names, feeds), strict=True)}


def main() -> None:
    """Parse the command line, write the view, and open it as ONNX Runtime does."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("bundle")
    parser.add_argument("view", type=Path)
    arguments = parser.parse_args()
    if arguments.view.exists():
        parser.error(f"{arguments.view} exists already")
    variants = write_view(Bundle.open(Path(arguments.bundle)), arguments.view)
    package = ort.ModelPackageContext(str(arguments.view))
    for component in sorted(package.get_component_names()):
        print(f"{component}: {variants[component]} ({package.get_variant_ep_name(component, variants[component])})")
    print("text_embed:", run_component(package, "text_embed"))


if __name__ == "__main__":
    main()
