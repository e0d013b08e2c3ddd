"""The bundle: manifest, graphs, engines, and everything else a device needs, in one folder or one file."""

from wanedge.bundle.archive import default_cache, pack, unpack
from wanedge.bundle.errors import BundleError, DamagedBundle, SignatureError, UnsafePath, UnsupportedBundle
from wanedge.bundle.manifest import Contents, FileEntry, GraphFiles, Manifest, Provenance, Variant
from wanedge.bundle.reader import Bundle
from wanedge.bundle.verify import FileCheck, Report, verify
from wanedge.bundle.writer import BundleWriter, sign, sign_release

__all__ = [
    "Bundle",
    "BundleError",
    "BundleWriter",
    "Contents",
    "DamagedBundle",
    "FileCheck",
    "FileEntry",
    "GraphFiles",
    "Manifest",
    "Provenance",
    "Report",
    "SignatureError",
    "UnsafePath",
    "UnsupportedBundle",
    "Variant",
    "default_cache",
    "pack",
    "sign",
    "sign_release",
    "unpack",
    "verify",
]
