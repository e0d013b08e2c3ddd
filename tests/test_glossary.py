"""The glossary is kept: private words stand neither in names nor in documents, and its terms are used."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("runtimes", "sdk", "calibration", "export")
GLOSSARY = ROOT / "docs/glossary.md"

# What stands for them: on_progress, replace_layers, mark_outputs, perturbed, hint, passed, profiling, probe.
PRIVATE_NAMES = {"told", "graft", "grafted", "tap", "tapped", "shaken", "mend", "met", "pays", "judge", "obstacle"}
KIOSK_NAMES = {"visitor", "visitors", "guide", "guides"}
STUMBLING = re.compile(
    r"\b(anew|mends?|mended|betray(s|ed)?|hitherto|thereof|whomever|for nothing is)\b", re.IGNORECASE
)

DOCUMENTS = [*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md"))]
MODULES = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]


def words_of_names(source: str) -> set[str]:
    """Words that the identifiers of a module are made of: snake_case parts, and CamelCase parts in lower case."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Name):
            names.add(node.id)
        elif isinstance(node, ast.arg):
            names.add(node.arg)
        elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            names.add(node.name)
        elif isinstance(node, ast.Attribute):
            names.add(node.attr)
    return {word.lower() for name in names for part in name.split("_") for word in re.findall(r"[A-Z]?[a-z0-9]+", part)}


def test_no_private_word_is_part_of_a_name() -> None:
    assert len(MODULES) > 80
    seen = {
        str(path.relative_to(ROOT)): sorted(words)
        for path in MODULES
        if (words := words_of_names(path.read_text("utf-8")) & (PRIVATE_NAMES | KIOSK_NAMES))
    }
    assert seen == {}


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: path.name)
def test_a_document_reads_at_once(document: Path) -> None:
    prose = re.sub(r"```.*?```|`[^`]*`", "", document.read_text("utf-8"), flags=re.DOTALL)
    assert [match[0] for match in STUMBLING.finditer(prose)] == []


def test_every_term_of_the_glossary_is_used() -> None:
    terms = [
        term.strip()
        for row in re.findall(r"^\| ([^|]+) \|", GLOSSARY.read_text("utf-8"), re.MULTILINE)[1:]
        for term in row.split(",")
        if "-" * 3 not in row
    ]
    assert len(terms) > 15
    text = "\n".join(path.read_text("utf-8").lower() for path in [*MODULES, *DOCUMENTS] if path != GLOSSARY)
    assert [term for term in terms if term.lower() not in text] == []


def test_the_words_of_a_name_are_seen() -> None:
    assert words_of_names("def mend_it(told): pass\nclass ShakenModel: x = self.met") >= {
        "told",
        "shaken",
        "met",
    }
