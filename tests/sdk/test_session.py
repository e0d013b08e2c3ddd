"""Sessions on a real bundle: threads, queues, the media clock, asyncio, saving."""

import asyncio
import gc
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.media import user_units
from tests.sessions import PATIENT_S, WORLD, answers, media, pull_all, push_units
from wanedge.bundle import Bundle, pack
from wanedge.model import Model
from wanedge.session import Session, SessionClosed, SessionFull
from wanedge.units import AgentUnit
from wanedge_runtimes.errors import InputError, WanEdgeError


@pytest.fixture(scope="module")
def model(mini_bundle: Bundle) -> Model:
    return Model.load(mini_bundle)


@pytest.fixture
def session(model: Model) -> Iterator[Session]:
    with Session.open(model, world=WORLD) as opened:
        yield opened


def test_a_session_answers_exactly_as_the_streamer_does(session: Session, model: Model) -> None:
    push_units(session, 9)
    assert media(pull_all(session)) == answers(model, 9)


@settings(max_examples=8)
@given(cuts=st.lists(st.integers(1, 3000), min_size=1, max_size=12), frames_at_once=st.integers(1, 7))
def test_any_way_of_cutting_the_input_gives_the_same_bytes(model: Model, cuts: list[int], frames_at_once: int) -> None:
    units = 4
    users = list(user_units(model.config, units))
    pcm = np.concatenate([u.audio for u in users])
    frames = np.concatenate([u.frames for u in users])
    with Session.open(model, world=WORLD) as session:
        heard = seen = 0
        for cut in [*cuts, *[1000] * len(pcm)]:
            # Frames go in as the audio reaches them, a few at a time.
            while seen < len(frames) and seen * model.config.audio.sample_rate / 25 <= heard:
                session.push(video=frames[seen : seen + frames_at_once])
                seen += frames_at_once
            if heard >= len(pcm):
                break
            session.push(audio=pcm[heard : heard + cut])
            heard += cut
        assert media(pull_all(session)) == answers(model, units)


def test_typed_text_reaches_the_model(model: Model) -> None:
    def audio_of(text: str | None) -> bytes:
        with Session.open(model, world=WORLD) as session:
            if text:
                session.push(text=text)
            push_units(session, 3)
            return b"".join(u.audio.tobytes() for u in pull_all(session))

    assert audio_of("Where is the lift?") != audio_of(None)


def test_typed_text_that_piles_up_is_refused_before_it_fills_the_memory(session: Session) -> None:
    def flood() -> None:
        for user in user_units(session.config, 200):
            session.push(audio=user.audio, video=user.frames, text="\u2603" * 900)  # three bytes, three tokens each
            session.pull(timeout=PATIENT_S)

    with pytest.raises(InputError, match="typed tokens wait") as caught:
        flood()
    assert "world text" in caught.value.hint


def test_two_sessions_do_not_disturb_each_other(model: Model) -> None:
    expected = answers(model, 12)
    with Session.open(model, world=WORLD) as one, Session.open(model, world="Elsewhere.", seed=3) as other:
        for user in user_units(model.config, 12):  # interleaved, so both workers run at once
            one.push(audio=user.audio, video=user.frames)
            other.push(audio=-user.audio, video=255 - user.frames)
        assert media(pull_all(one)) == expected
        assert media(pull_all(other)) != expected


MEMORY = """
import gc, re, sys
from pathlib import Path
import numpy as np
from wanedge.bundle import Bundle
from wanedge.model import Model
from wanedge.session import Session

def resident():
    gc.collect()
    return int(re.search(r"VmRSS:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]) * 1024

def one_more(model):
    session = Session.open(model)
    video = session.config.user_video
    session.push(
        audio=np.zeros(session.config.audio.samples, np.float32),
        video=np.zeros((4, video.height, video.width, 3), np.uint8),
    )
    assert len(session.pull(timeout=60)) == 1
    return session

model = Model.load(sys.argv[1])
kept = [one_more(model)]
before = resident()
kept += [one_more(model) for _ in range(4)]
print((resident() - before) // 4, sum(g.spec.state_bytes for g in model.graphs.values()))
"""


@pytest.mark.slow
def test_sessions_share_the_weights_in_memory(tmp_path: Path) -> None:
    """A further session costs its state and buffers, not another copy of the weights."""
    pytest.importorskip("torch", reason="torch is not installed: pip install 'wanedge[export]'")
    from tests.configs import mini
    from wanedge.config import BackboneConfig
    from wanedge_export.bundling import export_bundle
    from wanedge_export.model import ReferenceModel

    # Wide enough that the weights (about 50 MB) stand far above the state and the noise of a process's memory.
    wide = mini().backbone.model_copy(update={"width": 512, "ffn": 4096, "layout": ("local", "local")})
    model = ReferenceModel(mini(name="wide", backbone=BackboneConfig.model_validate(wide.model_dump())))
    weights = sum(p.numel() * 4 for p in model.backbone.parameters())
    bundle = export_bundle(model, tmp_path / "wide")
    out = subprocess.run(
        [sys.executable, "-c", MEMORY, str(bundle.root)], capture_output=True, text=True, check=True
    ).stdout.split()
    each, state = int(out[0]), int(out[1])
    assert weights > 45e6
    assert each < 2 * state + 0.1 * weights


def test_asyncio_gets_every_unit_in_order_and_ends(model: Model) -> None:
    async def converse() -> list[AgentUnit]:
        with Session.open(model, world=WORLD) as session:
            push_units(session, 6)
            session.finish()
            return [unit async for unit in session.units()]

    assert media(asyncio.run(asyncio.wait_for(converse(), PATIENT_S))) == answers(model, 6)


def test_asyncio_ends_when_another_task_closes_the_session(model: Model) -> None:
    async def converse() -> int:
        with Session.open(model, world=WORLD) as session:
            push_units(session, 2)
            seen = 0
            async for _ in session.units():
                seen += 1
                if seen == 2:
                    asyncio.get_running_loop().call_later(0.05, session.close)
            return seen

    assert asyncio.run(asyncio.wait_for(converse(), PATIENT_S)) == 2


def test_a_saved_session_goes_on_where_it_was(model: Model, tmp_path: Path) -> None:
    with Session.open(model, world=WORLD) as first:
        push_units(first, 7)
        for _ in range(1000):
            if first.metrics.ready == 7:
                break
            time.sleep(0.05)
        first.save(tmp_path / "conversation")
    with Session.open(model, world="ignored", state=tmp_path / "conversation") as second:
        push_units(second, 5, first=7)
        assert media(pull_all(second)) == answers(model, 12)[7:]


def test_a_full_session_refuses_the_whole_push_and_loses_nothing(model: Model) -> None:
    with Session.open(model, world=WORLD, max_waiting=2, max_ready=2) as session:
        with pytest.raises(SessionFull) as caught:
            push_units(session, 40)  # nobody pulls, so the queues must fill
        assert "take answers" in caught.value.hint
        session.pull(timeout=PATIENT_S)
        assert session.wait_for_room(PATIENT_S)
    with Session.open(model, world=WORLD, max_waiting=2, max_ready=2) as session:
        units: list[AgentUnit] = []
        for user in user_units(model.config, 12):
            while not session.wait_for_room(0.01):
                units += session.pull()
            session.push(audio=user.audio, video=user.frames)
        session.finish()
        while not session.ended:
            units += session.pull(timeout=PATIENT_S)
        assert media(units) == answers(model, 12)


def test_a_session_may_give_up_the_oldest_units_and_says_so(model: Model) -> None:
    with Session.open(model, world=WORLD, max_waiting=2, max_ready=2, on_full="drop_oldest") as session:
        push_units(session, 30)
        units = pull_all(session)
        metrics = session.metrics
    assert metrics.dropped_units + metrics.dropped_answers == 30 - len(units) > 0
    indices = [u.index for u in units]
    assert indices == sorted(set(indices))
    assert indices[-2:] == [28, 29]
    assert all(u.start_ms == u.index * 160 for u in units)


def test_a_unit_later_than_its_deadline_is_marked(model: Model) -> None:
    with Session.open(model, world=WORLD, deadline_ms=0.0) as session:
        push_units(session, 2)
        assert all(u.timing.deadline_missed for u in pull_all(session))
        assert session.metrics.deadline_misses == 2
        assert set(session.metrics.latency_ms) == {"p50", "p95", "p99", "max"}


def test_close_returns_while_units_wait_and_while_someone_pulls(model: Model) -> None:
    before = set(threading.enumerate())
    session = Session.open(model, world=WORLD, max_ready=1)
    (worker,) = set(threading.enumerate()) - before
    push_units(session, 20)
    outcome: list[BaseException] = []

    def pull_until_closed() -> None:
        try:
            while True:
                session.pull(timeout=PATIENT_S)
        except WanEdgeError as error:
            outcome.append(error)

    puller = threading.Thread(target=pull_until_closed)
    puller.start()
    session.close()
    session.close()
    puller.join(PATIENT_S)
    assert not puller.is_alive()
    assert isinstance(outcome[0], SessionClosed)
    assert not worker.is_alive()


def test_a_session_opens_from_a_folder_an_archive_and_an_open_bundle(
    mini_bundle: Bundle, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    archive = pack(mini_bundle.root, tmp_path / "mini.wanedge")
    expected = answers(Model.load(mini_bundle), 1)
    for source in (mini_bundle.root, str(mini_bundle.root), archive, mini_bundle):
        with Session.open(source, world=WORLD) as session:
            push_units(session, 1)
            assert media(pull_all(session)) == expected


LEFT_OPEN = """
import logging, sys
import numpy as np
from wanedge.session import Session

logging.getLogger("wanedge").setLevel(logging.ERROR)  # a busy machine answers late, and says so
session = Session.open(sys.argv[1])
video = session.config.user_video
for _ in range(30):  # so that the worker is inside a graph run when the process ends
    session.push(
        audio=np.zeros(session.config.audio.samples, np.float32),
        video=np.zeros((4, video.height, video.width, 3), np.uint8),
    )
session.pull(timeout=60)
"""


@pytest.mark.slow
def test_a_process_that_forgets_to_close_its_session_still_ends_in_good_order(mini_bundle: Bundle) -> None:
    for _ in range(5):  # whether the worker is caught inside a run is a matter of chance
        command = [sys.executable, "-c", LEFT_OPEN, str(mini_bundle.root)]
        done = subprocess.run(command, capture_output=True, text=True, timeout=PATIENT_S, check=False)
        assert (done.returncode, done.stderr) == (0, "")


def test_closed_sessions_leave_no_threads_behind(model: Model) -> None:
    before = threading.active_count()
    for _ in range(5):
        with Session.open(model) as session:
            push_units(session, 1)
    gc.collect()
    assert threading.active_count() == before


def test_audio_arrives_in_the_units_untouched(model: Model) -> None:
    """int16 stereo at the model's rate and float32 mono of the same content are the same units."""
    user = next(iter(user_units(model.config, 1, first=1)))
    level = (user.audio * 32767).round().astype(np.int16)
    as_float = replace(user, audio=(level / np.float32(32768)).astype(np.float32))

    def reply(audio: np.ndarray) -> bytes:
        with Session.open(model, world=WORLD) as session:
            session.push(audio=audio, video=user.frames)
            return pull_all(session)[0].audio.tobytes()

    assert reply(np.stack([level, level], axis=1)) == reply(as_float.audio)
