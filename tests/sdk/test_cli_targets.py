"""`wanedge targets` lists every device, for a person and for a machine."""

import json

from typer.testing import CliRunner

from wanedge.cli.app import build_app
from wanedge_runtimes.targets import TARGETS


def test_every_target_is_listed_with_what_this_machine_can_do() -> None:
    document = json.loads(CliRunner().invoke(build_app([]), ["targets", "--json"]).stdout)
    assert [row["name"] for row in document["targets"]] == [target.name for target in TARGETS]
    for row in document["targets"]:
        assert row["sources"]
        assert {what: type(answer["yes"]) for what, answer in row["here"].items()} == dict.fromkeys(
            ("lint", "build", "run"), bool
        )
        assert all(answer["why"] for answer in row["here"].values())


def test_the_table_names_every_device() -> None:
    shown = CliRunner().invoke(build_app([]), ["targets"])
    assert shown.exit_code == 0, shown.stderr
    for target in TARGETS:
        assert target.name[:18] in shown.stdout
