"""Ends of every command: two lines for an error, the right exit code, no traceback unless asked for."""

import json
import subprocess
import sys
from collections.abc import Callable
from importlib.metadata import EntryPoint, version
from pathlib import Path

import pytest
import typer
from typer.testing import CliRunner

from wanedge.cli.app import GROUP, build_app, pip_command
from wanedge.commands import Misuse, add_command, report_errors
from wanedge_runtimes.errors import GraphError, InputError, MissingExtra

COMMANDS = ("run", "inspect", "verify", "doctor", "bench")
HEAVY = {"numpy", "pydantic", "onnxruntime", "av", "soxr", "tokenizers", "torch", "onnx"}


def plugin(name: str, value: str) -> EntryPoint:
    return EntryPoint(name=name, group=GROUP, value=value)


def register_greeting(app: typer.Typer) -> None:
    """What an entry point names."""

    @app.command("greet")
    def greet(name: str) -> None:
        typer.echo(f"hello {name}")


def failing(error: BaseException) -> Callable[[typer.Typer], None]:
    def register(app: typer.Typer) -> None:
        @app.command("fail")
        def fail() -> None:
            raise error

    return register


@pytest.fixture
def fail_with(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], typer.testing.Result]:
    def run(error: BaseException) -> typer.testing.Result:
        monkeypatch.setattr(sys.modules[__name__], "register_failure", failing(error), raising=False)
        app = build_app([plugin("fail", f"{__name__}:register_failure")])
        return CliRunner().invoke(app, ["fail"])

    return run


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (GraphError("backbone: broken", hint="wanedge verify BUNDLE"), 1),
        (MissingExtra("needs av", hint="pip install 'wanedge[media]'"), 1),
        (Misuse("no such thing", hint="wanedge --help"), 2),
        (InputError("too long", hint="shorten it"), 2),
        (PermissionError(13, "Permission denied", "reply.mp4"), 1),
    ],
)
def test_an_error_is_two_lines_and_a_code(fail_with, error: Exception, code: int) -> None:
    result = fail_with(error)
    assert result.exit_code == code
    assert result.stdout == ""
    first, second = result.stderr.splitlines()
    assert first.startswith("error: ")
    assert second.startswith("-> ")


def test_brackets_of_an_extra_survive_in_the_hint(fail_with) -> None:
    result = fail_with(MissingExtra("no av", hint="pip install 'wanedge[media]'"))
    assert "-> pip install 'wanedge[media]'" in result.stderr


def test_debug_shows_the_traceback_too(fail_with, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANEDGE_DEBUG", "1")
    result = fail_with(GraphError("backbone: broken", hint="wanedge verify BUNDLE"))
    assert result.exit_code == 1
    assert "Traceback" in result.stderr
    assert result.stderr.endswith("error: backbone: broken\n-> wanedge verify BUNDLE\n")


def test_ctrl_c_is_130(fail_with) -> None:
    assert fail_with(KeyboardInterrupt()).exit_code == 130


def test_a_bug_is_not_dressed_up(fail_with) -> None:
    assert isinstance(fail_with(ZeroDivisionError()).exception, ZeroDivisionError)


def test_commands_of_other_packages_join_in() -> None:
    app = build_app([plugin("greet", f"{__name__}:register_greeting")])
    assert CliRunner().invoke(app, ["greet", "Ada"]).stdout == "hello Ada\n"


def test_a_command_whose_packages_are_missing_says_how_to_get_them() -> None:
    app = build_app([plugin("paint", "no_such_package.cli:register")])
    assert "paint" in CliRunner().invoke(app, ["--help"]).stdout
    result = CliRunner().invoke(app, ["paint", "a", "house", "--red"])
    assert result.exit_code == 1
    assert "no_such_package" in result.stderr
    assert "-> pip install" in result.stderr


def test_a_command_without_its_modules_is_listed_with_the_pip_command_and_fails_before_its_work() -> None:
    app = build_app([])
    add_command(app, "paint", lambda: None, extra="live", modules=("json", "no_such_brush"), epilog="")
    assert (
        "Not installed: pip install 'wanedge[live]'" in CliRunner().invoke(app, ["--help"], terminal_width=200).stdout
    )
    result = CliRunner().invoke(app, ["paint", "--red", "a house"])
    assert result.exit_code == 1
    assert "wanedge paint needs no_such_brush" in result.stderr
    assert result.stderr.splitlines()[-1] == "-> pip install 'wanedge[live]'"


@pytest.mark.parametrize(("module", "extra"), [("torch.nn", "export"), ("onnx", "engines"), ("av", "media")])
def test_a_module_that_a_command_forgot_to_look_for_names_its_extra(fail_with, module: str, extra: str) -> None:
    result = fail_with(ModuleNotFoundError(f"No module named '{module}'", name=module))
    assert result.exit_code == 1
    assert result.stderr.splitlines()[-1] == f"-> pip install 'wanedge[{extra}]'"


def test_a_missing_module_of_our_own_is_a_bug() -> None:
    error = ModuleNotFoundError("No module named 'wanedge.gone'", name="wanedge.gone")
    with pytest.raises(ModuleNotFoundError), report_errors():
        raise error


def test_only_missing_packages_are_forgiven() -> None:
    with pytest.raises(AttributeError):
        build_app([plugin("broken", f"{__name__}:no_such_function")])


def test_the_pip_command_names_the_extra_of_the_package() -> None:
    found = {entry.name: pip_command(entry) for entry in installed_entries()}
    assert found["export"] == "pip install 'wanedge[export]'"


def installed_entries() -> list[EntryPoint]:
    from importlib.metadata import distribution

    return [entry for entry in distribution("wanedge").entry_points if entry.group == GROUP]


@pytest.mark.parametrize("command", COMMANDS)
def test_help_shows_an_example_of_the_command(command: str) -> None:
    result = CliRunner().invoke(build_app([]), [command, "--help"], terminal_width=200)
    assert result.exit_code == 0
    assert f"Example: wanedge {command} " in result.stdout


@pytest.mark.parametrize(
    "arguments",
    [
        ["inspect", "nowhere"],
        ["verify", "nowhere"],
        ["bench", "nowhere"],
        ["run", "nowhere", "clip.mp4"],
        ["run", "."],
        ["run", ".", "nowhere.mp4"],
        ["run", ".", "--live", "clip.mp4"],
        ["run", ".", "--live", "--side-by-side", "-o", "reply.mp4"],
        ["run", ".", "--live", "--pace", "slow"],
        ["run", ".", "--live", "-o", "reply.wav"],
        ["run", ".", "--live", "-o", "nowhere/reply.mp4"],
        ["run", ".", "--live", "--state", "nowhere.state"],
        ["run", ".", "--live", "--save-state", "nowhere/s.state"],
        ["run", ".", "--live", "--runtime", "abacus"],
        ["run", ".", "--live", "--side-by-side"],
        ["bench", ".", "--units", "0"],
        ["bench", ".", "--json", "nowhere/bench.json"],
        ["bench", ".", "--runtime", "abacus"],
        ["verify", ".", "--key", "nowhere.pem"],
        ["no-such-command"],
        ["doctor", "--no-such-option"],
    ],
    ids=" ".join,
)
def test_misuse_is_2_and_says_why(arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(build_app([]), arguments)
    assert result.exit_code == 2, result.stderr
    assert result.stdout == ""
    assert result.stderr


def test_version() -> None:
    assert CliRunner().invoke(build_app([]), ["--version"]).stdout == f"wanedge {version('wanedge')}\n"


def test_help_imports_nothing_heavy() -> None:
    """The commands of the other floors included: each of their modules is loaded for its line of help."""
    code = "from wanedge.cli.app import build_app; build_app()(['--help'], standalone_mode=False)"
    assert modules_after(code) & (HEAVY | {"asyncio"}) == set()


def test_importing_wanedge_imports_nothing_else_until_a_name_is_used() -> None:
    assert modules_after("import wanedge") & HEAVY == set()
    assert "numpy" in modules_after("import wanedge; wanedge.Streamer")


def test_importing_the_session_leaves_out_what_only_some_sessions_need() -> None:
    """asyncio, with its sockets and TLS, is for those who await; runtimes, codecs and tokenizers come with a bundle."""
    loaded = modules_after("import wanedge.session")
    assert loaded & (HEAVY - {"numpy", "pydantic"} | {"asyncio", "ssl", "sounddevice", "cv2", "typer", "rich"}) == set()
    assert loaded >= {"numpy", "pydantic"}


def test_every_public_name_can_be_imported() -> None:
    import wanedge

    for name in wanedge.__all__:
        assert getattr(wanedge, name) is not None
    with pytest.raises(AttributeError, match="no_such_name"):
        wanedge.no_such_name  # noqa: B018


def modules_after(code: str) -> set[str]:
    """Top-level modules that are loaded after `code`, in a fresh process."""
    code += "\nimport json, sys; print('\\n' + json.dumps(sorted({m.split('.')[0] for m in sys.modules})))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
    return set(json.loads(out.splitlines()[-1]))


def test_our_commands_are_listed_without_their_heavy_packages() -> None:
    """An entry point whose own import fails would be explained by whatever extra it is named after."""
    absent = ("torch", "onnx", "onnxruntime", "scipy", "yaml", "jinja2", "ml_dtypes", "tokenizers", "av")
    code = (
        f"import sys\nfor name in {absent}: sys.modules[name] = None\n"
        "from wanedge.cli.app import installed_plugins\n"
        "print([p.load().__name__ for p in installed_plugins() if p.value.startswith('wanedge_')])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.count("register") == len([e for e in installed_entries() if e.value.startswith("wanedge_")])
