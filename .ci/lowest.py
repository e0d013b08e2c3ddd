"""Print pip constraints with the lowest versions that pyproject.toml allows: lowest.py FILE GROUP...

A group is "base" or an extra. A dependency `name>=13` becomes `name==13.0.*`, for there may be no release 13.0.
"""

import re
import sys
import tomllib
from pathlib import Path

file, *groups = sys.argv[1:]
project = tomllib.loads(Path(file).read_text("utf-8"))["project"]
for group in groups:
    for requirement in project["dependencies"] if group == "base" else project["optional-dependencies"][group]:
        found = re.match(r"([\w.-]+)(?:\[[\w,]+\])?>=([\d.]+)", requirement)
        if found:
            release = found[2] if "." in found[2] else f"{found[2]}.0"
            print(f"{found[1]}=={release}.*")
