"""The commands of calibration: calibrate, quantize, validate."""

import typer

from wanedge_calibration.cli import calibrate, quantize, validate


def register(app: typer.Typer) -> None:
    for command in (calibrate, quantize, validate):
        command.register(app)
