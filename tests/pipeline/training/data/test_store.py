"""The sample store: on disk as in memory, a ring once full, whole after growth and reopening."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.training.data.objects import ObjectPool
from pipeline.training.data.open_data import held_out_store, open_data
from pipeline.training.data.samples import Sample, SampleSettings, heldout_sample
from pipeline.training.data.store import Refill, SampleBatch, SampleStore
from scene.errors import InputError

TINY = SampleSettings(size=4, targets=2, volume=4)


def made_up(number: int, like: SampleSettings = TINY) -> Sample:
    """A sample of random content, told apart by its number."""
    rng = np.random.default_rng(number)
    s, t, r = like.size, like.targets, like.volume
    return Sample(
        rng.integers(0, 256, (s, s, 4), dtype=np.uint8),
        np.full(4, number, np.float32),
        rng.integers(0, 256, (t, s, s, 4), dtype=np.uint8),
        rng.random((t, 3)).astype(np.float32),
        rng.random((r, r, r)) > 0.5,
        rng.integers(0, 256, (r, r, r, 3), dtype=np.uint8),
    )


def numbers(store: SampleStore) -> list[int]:
    """Which samples a store holds."""
    return sorted(int(v) for v in store.batch_all().source_camera[:, 0])


def assert_holds(batch: SampleBatch, expected: list[int], like: SampleSettings = TINY) -> None:
    """Every field of every row is that of the sample its number names."""
    assert sorted(int(v) for v in batch.source_camera[:, 0]) == sorted(expected)
    for row, number in enumerate(batch.source_camera[:, 0]):
        sample = made_up(int(number), like)
        for name, value in vars(sample).items():
            assert np.array_equal(getattr(batch, name)[row], value), name


@pytest.mark.parametrize("on_disk", [False, True])
@pytest.mark.parametrize("volume", [4, 0, 3])
def test_samples_come_back_as_they_went(tmp_path: Path, on_disk: bool, volume: int) -> None:
    settings = replace(TINY, volume=volume)
    store = SampleStore(settings, 5, tmp_path / "samples" if on_disk else None)
    for k in range(3):
        store.append(made_up(k, settings))
    assert len(store) == 3
    assert_holds(store.batch_all(), [0, 1, 2], settings)
    assert_holds(store.batch(np.array([2, 0])), [0, 2], settings)
    assert_holds(store.batch(np.array([1, 1])), [1, 1], settings)


def test_a_store_takes_in_what_another_process_adds(tmp_path: Path) -> None:
    """Up to the last flush, and no further than its own room."""
    writer = SampleStore(TINY, 3, tmp_path)
    writer.append(made_up(0))
    writer.flush()
    reader = SampleStore.open(tmp_path)
    writer.append(made_up(1))
    reader.reread()
    assert numbers(reader) == [0]
    writer.flush()
    reader.reread()
    assert_holds(reader.batch_all(), [0, 1])
    wider = SampleStore(TINY, 9, tmp_path)
    for k in range(2, 7):
        wider.append(made_up(k))
    wider.flush()
    reader.reread()
    assert_holds(reader.batch_all(), [0, 1, 2])
    in_memory = SampleStore(TINY, 2)
    in_memory.reread()
    assert len(in_memory) == 0


@settings(max_examples=30)
@given(capacity=st.integers(1, 5), count=st.integers(0, 14))
def test_the_newest_samples_replace_the_oldest(capacity: int, count: int) -> None:
    store = SampleStore(TINY, capacity)
    for k in range(count):
        store.append(made_up(k))
    assert len(store) == min(count, capacity)
    assert numbers(store) == list(range(max(0, count - capacity), count))


@settings(max_examples=25)
@given(first=st.integers(0, 9), second=st.integers(0, 9), before=st.integers(1, 5), after=st.integers(1, 8))
def test_reopening_and_growing_on_disk_keeps_what_is_there(
    tmp_path_factory: pytest.TempPathFactory, first: int, second: int, before: int, after: int
) -> None:
    """A store never counts a place that no sample was written to."""
    folder = tmp_path_factory.mktemp("samples")
    store = SampleStore(TINY, before, folder)
    for k in range(first):
        store.append(made_up(k))
    store.flush()
    held = numbers(store) if first else []
    grown = SampleStore(TINY, after, folder)
    assert grown.capacity == max(before, after)
    if first:
        assert_holds(grown.batch_all(), held)
    for k in range(100, 100 + second):
        grown.append(made_up(k))
    grown.flush()
    assert len(grown) == min(len(held) + second, grown.capacity)
    if len(grown):
        kept = numbers(grown)
        assert set(kept) <= {*held, *range(100, 100 + second)}
        assert set(range(100, 100 + second)[-grown.capacity :]) <= set(kept)
        assert_holds(grown.batch_all(), kept)
        assert_holds(SampleStore.open(folder).batch_all(), kept)


def test_growth_after_the_ring_has_turned_leaves_no_gap(tmp_path: Path) -> None:
    store = SampleStore(TINY, 4, tmp_path)
    for k in range(6):
        store.append(made_up(k))
    store.flush()
    grown = SampleStore(TINY, 8, tmp_path)
    assert_holds(grown.batch_all(), [2, 3, 4, 5])
    grown.append(made_up(6))
    assert_holds(grown.batch_all(), [2, 3, 4, 5, 6])


def test_what_was_not_flushed_is_not_counted(tmp_path: Path) -> None:
    store = SampleStore(TINY, 4, tmp_path)
    store.append(made_up(0))
    store.flush()
    store.append(made_up(1))
    assert len(SampleStore.open(tmp_path)) == 1


def test_a_folder_of_other_samples_is_refused(tmp_path: Path) -> None:
    SampleStore(TINY, 4, tmp_path).flush()
    with pytest.raises(InputError, match="samples of other settings"):
        SampleStore(replace(TINY, size=8), 4, tmp_path)
    assert SampleStore.open(tmp_path).settings == TINY


def test_a_folder_without_samples_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no samples here.*render_samples"):
        SampleStore.open(tmp_path)


def test_a_reader_never_sees_half_a_sample() -> None:
    """A batch is asked for while a sample is on its way into the only place."""
    store, begun, read, found = SampleStore(TINY, 1), threading.Event(), threading.Event(), list[SampleBatch]()
    store.append(made_up(0))

    class Slow(np.ndarray):
        """Waits before it is written, so that a reader has its chance."""

        def __setitem__(self, key: object, value: object) -> None:
            begun.set()
            read.wait(0.5)
            super().__setitem__(key, value)  # type: ignore[index]

    def reader() -> None:
        begun.wait(5)
        found.append(store.batch_all())
        read.set()

    store._arrays["targets"] = store._arrays["targets"].view(Slow)
    thread = threading.Thread(target=reader)
    thread.start()
    store.append(made_up(1))
    thread.join(5)
    assert_holds(found[0], [1])


def test_single_images_are_sources_and_targets_alike() -> None:
    store = SampleStore(TINY, 3)
    for k in range(3):
        store.append(made_up(k))
    images = store.images(np.random.default_rng(0), 400)
    assert images.shape == (400, 4, 4, 4)
    known = [image.tobytes() for k in range(3) for image in (made_up(k).source, *made_up(k).targets)]
    counts = [sum(image.tobytes() == k for image in images) for k in known]
    assert sum(counts) == 400
    assert min(counts) > 20


# --- refilling --------------------------------------------------------------------------------------------------------


class Source:
    """An iterator of samples that can fail, once it may, and knows when it was closed."""

    def __init__(self, fail_at: int | None = None) -> None:
        self.fail_at, self.count, self.closed, self.may_fail = fail_at, 0, threading.Event(), threading.Event()

    def __iter__(self) -> Iterator[Sample]:
        return self

    def __next__(self) -> Sample:
        if self.count == self.fail_at:
            self.may_fail.wait(10)
            raise RuntimeError("the renderer broke")
        self.count += 1
        return made_up(self.count)

    def close(self) -> None:
        self.closed.set()


def test_refilling_waits_for_the_first_samples_and_stops_with_the_block() -> None:
    store, source = SampleStore(TINY, 8), Source()
    with Refill(store, source, first=5):
        assert store.written >= 5
    assert source.closed.wait(5)
    written = store.written
    assert written == source.count
    assert len(store) == min(written, 8)


def test_a_stream_that_breaks_before_the_start_is_an_error() -> None:
    source = Source(fail_at=2)
    source.may_fail.set()
    with pytest.raises(RuntimeError, match="the renderer broke"):
        Refill(SampleStore(TINY, 8), source, first=5).__enter__()


def test_a_stream_that_breaks_later_stops_the_training() -> None:
    """Rather than train on the same samples for the rest of the night."""
    store, source = SampleStore(TINY, 8), Source(fail_at=20)
    with Refill(store, source, first=5):
        assert len(store.batch(np.array([0]))) == 1
        source.may_fail.set()
        assert source.closed.wait(10)
        with pytest.raises(RuntimeError, match="the renderer broke"):
            store.batch(np.array([0]))
        with pytest.raises(RuntimeError, match="the renderer broke"):
            store.images(np.random.default_rng(0), 1)


def test_a_stream_that_ends_leaves_what_it_gave() -> None:
    store = SampleStore(TINY, 8)
    with Refill(store, iter([made_up(0), made_up(1)]), first=5):
        assert_holds(store.batch_all(), [0, 1])


# --- opening data -----------------------------------------------------------------------------------------------------

SMALL = SampleSettings(size=16, targets=2, volume=4)


def test_held_out_samples_are_the_pools_in_its_order(pool_folder: Path) -> None:
    store, pool = held_out_store(pool_folder, SMALL), ObjectPool(pool_folder, "val")
    batch = store.batch_all()
    assert len(batch) == 2
    for k in range(2):
        assert np.array_equal(batch.targets[k], heldout_sample(pool, k, SMALL).targets)


@pytest.mark.parametrize("stored", [True, False])
def test_training_data_are_stored_or_rendered(pool_folder: Path, tmp_path: Path, stored: bool) -> None:
    store = SampleStore(SMALL, 3, tmp_path)
    store.append(made_up(7, SMALL))
    store.flush()
    with contextlib.ExitStack() as stack:
        training, held_out = open_data(
            stack, pool_folder, tmp_path if stored else None, workers=0, held=4, seed=1, settings=SMALL
        )
        assert len(held_out) == 2
        assert len(training) == (1 if stored else 4)
        assert training.batch_all().source[..., 3].any()
