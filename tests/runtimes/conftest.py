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


@pytest.fixture(scope="session")
def cache(runtime: OrtRuntime, cache_case: Case) -> OrtExecutable:
    return runtime.load(cache_case.path, cache_case.spec)


@pytest.fixture(scope="session")
def tail(runtime: OrtRuntime, tail_case: Case) -> OrtExecutable:
    return runtime.load(tail_case.path, tail_case.spec)


@pytest.fixture(scope="session")
def bfloat16(runtime: OrtRuntime, tmp_path_factory: pytest.TempPathFactory) -> OrtExecutable:
    case = write_bfloat16(tmp_path_factory.mktemp("bfloat16"))
    return runtime.load(case.path, case.spec)
