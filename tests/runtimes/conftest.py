import pytest

from tests.runtimes.small_graphs import Case, write_bfloat16, write_cache, write_tail
from wanedge_runtimes.ort import OrtExecutable, OrtRuntime
from wanedge_runtimes.runtime import RuntimeOptions


@pytest.fixture(scope="session")
def runtime() -> OrtRuntime:
    return OrtRuntime(RuntimeOptions(threads=1))


@pytest.fixture(scope="session")
def cache_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return write_cache(tmp_path_factory.mktemp("cache"))


@pytest.fixture(scope="session")
def tail_case(tmp_path_factory: pytest.TempPathFactory) -> Case:
    return write_tail(tmp_path_factory.mktemp("tail"))


def loaded(runtime: OrtRuntime, case: Case) -> OrtExecutable:
    executable = runtime.load(case.path, case.spec)
    assert isinstance(executable, OrtExecutable)  # not the one that keeps its states on a device
    return executable


@pytest.fixture(scope="session")
def cache(runtime: OrtRuntime, cache_case: Case) -> OrtExecutable:
    return loaded(runtime, cache_case)


@pytest.fixture(scope="session")
def tail(runtime: OrtRuntime, tail_case: Case) -> OrtExecutable:
    return loaded(runtime, tail_case)


@pytest.fixture(scope="session")
def bfloat16(runtime: OrtRuntime, tmp_path_factory: pytest.TempPathFactory) -> OrtExecutable:
    return loaded(runtime, write_bfloat16(tmp_path_factory.mktemp("bfloat16")))
