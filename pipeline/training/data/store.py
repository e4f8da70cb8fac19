"""A fixed-size store of samples, in memory or on disk: a data set, or a ring that a stream refills."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float, Int, UInt8

from pipeline.training.data.samples import Sample, SampleSettings
from scene.errors import InputError

_HEADER = "samples.json"


@dataclass(frozen=True, eq=False)
class SampleBatch:
    """Samples stacked along a leading axis; the fields are those of :class:`Sample`."""

    source: UInt8[np.ndarray, "b s s 4"]
    source_camera: Float[np.ndarray, "b 4"]
    targets: UInt8[np.ndarray, "b t s s 4"]
    target_cameras: Float[np.ndarray, "b t 3"]
    solid: UInt8[np.ndarray, "b r r r"]
    solid_colours: UInt8[np.ndarray, "b r r r 3"]

    def __len__(self) -> int:
        return len(self.source)


class SampleStore:
    """Room for ``capacity`` samples; once full, new ones replace the oldest. One thread may add while another reads.

    Args:
        settings: shapes of the samples.
        capacity: samples held.
        folder: keep them in memory-mapped files here; in memory if None. An existing folder of the same settings is
            opened with what it holds, and grows if ``capacity`` is larger than before.
    """

    def __init__(self, settings: SampleSettings, capacity: int, folder: Path | None = None) -> None:
        self.settings, self.capacity, self.folder = settings, capacity, folder
        s, t, r = settings.size, settings.targets, settings.volume
        shapes: dict[str, tuple[tuple[int, ...], type]] = {
            "source": ((s, s, 4), np.uint8),
            "source_camera": ((4,), np.float32),
            "targets": ((t, s, s, 4), np.uint8),
            "target_cameras": ((t, 3), np.float32),
            "solid": (((r**3 + 7) // 8,), np.uint8),
            "solid_colours": ((r, r, r, 3), np.uint8),
        }
        self.written = 0
        self._lock = threading.Lock()
        self.failure: BaseException | None = None
        """What the stream that fills the store died of; reading raises it."""
        if folder is not None:
            folder.mkdir(parents=True, exist_ok=True)
            header = folder / _HEADER
            if header.exists():
                held = json.loads(header.read_text(encoding="utf-8"))
                if held["settings"] != json.loads(json.dumps(asdict(settings))):
                    raise InputError(
                        "the folder holds samples of other settings",
                        where=folder,
                        fix="Use another folder, or delete this one.",
                    )
                self.capacity = max(capacity, held["capacity"])
                # A ring that has turned goes on behind its last place when it grows, or there would be a gap.
                grows = self.capacity > held["capacity"]
                self.written = min(held["written"], held["capacity"]) if grows else held["written"]
        self._arrays: dict[str, np.ndarray] = {}
        for name, (shape, dtype) in shapes.items():
            full = (self.capacity, *shape)
            if folder is None or 0 in full:  # numpy 1 maps no empty files
                self._arrays[name] = np.zeros(full, dtype)
            else:
                path = folder / f"{name}.bin"
                # Raw values without a header, so that a larger capacity just lengthens the file.
                self._arrays[name] = np.memmap(path, dtype, "r+" if path.exists() else "w+", shape=full)

    @classmethod
    def open(cls, folder: Path) -> SampleStore:
        """Open a folder written by an earlier store.

        Raises:
            InputError: the folder holds no samples.
        """
        header = folder / _HEADER
        if not header.is_file():
            raise InputError("no samples here", where=folder, fix="Make some with scripts/render_samples.py.")
        held = json.loads(header.read_text(encoding="utf-8"))
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in held["settings"].items()}
        return cls(SampleSettings(**values), held["capacity"], folder)

    def __len__(self) -> int:
        return min(self.written, self.capacity)

    def append(self, sample: Sample) -> None:
        """Add one sample, over the oldest one if the store is full."""
        row = {name: np.packbits(sample.solid) if name == "solid" else getattr(sample, name) for name in self._arrays}
        with self._lock:
            at = self.written % self.capacity
            for name, array in self._arrays.items():
                array[at] = row[name]
            self.written += 1

    def flush(self) -> None:
        """Make what was added so far survive the end of the process."""
        if self.folder is None:
            return
        for array in self._arrays.values():
            if isinstance(array, np.memmap):
                array.flush()
        header = {"written": self.written, "capacity": self.capacity, "settings": asdict(self.settings)}
        partial = self.folder / (_HEADER + ".part")
        partial.write_text(json.dumps(header), encoding="utf-8")
        partial.replace(self.folder / _HEADER)

    def reread(self) -> None:
        """Take in what another process has added to the folder, up to its last flush and to this capacity."""
        if self.folder is not None and (self.folder / _HEADER).is_file():
            held = json.loads((self.folder / _HEADER).read_text(encoding="utf-8"))
            self.written = max(self.written, min(held["written"], self.capacity))

    def batch(self, index: Int[np.ndarray, "b"]) -> SampleBatch:
        """Copies of the samples at the given places, in rising order."""
        self._check()
        index = np.sort(np.asarray(index))
        r = self.settings.volume
        with self._lock:
            parts = {name: np.asarray(array[index]) for name, array in self._arrays.items()}
        parts["solid"] = np.unpackbits(parts["solid"], axis=1, count=r**3).reshape(len(index), r, r, r)
        return SampleBatch(**parts)

    def batch_all(self) -> SampleBatch:
        """All samples held, in order."""
        return self.batch(np.arange(len(self)))

    def images(self, rng: np.random.Generator, count: int) -> UInt8[np.ndarray, "b s s 4"]:
        """Random single images, sources and targets alike."""
        self._check()
        index = rng.integers(len(self), size=count)
        which = rng.integers(self.settings.targets + 1, size=count)
        sources, targets = self._arrays["source"], self._arrays["targets"]
        with self._lock:
            return np.stack([sources[i] if w == 0 else targets[i, w - 1] for i, w in zip(index, which, strict=True)])

    def _check(self) -> None:
        if self.failure is not None:
            raise self.failure


class Refill:
    """Fills a store from a stream in a background thread, for as long as the ``with`` block lasts.

    If the stream fails, reading from the store raises its error.

    Args:
        store: the store to fill.
        samples: where new samples come from.
        first: samples to wait for before the block starts.
    """

    def __init__(self, store: SampleStore, samples: Iterator[Sample], first: int) -> None:
        self.store, self._samples, self._first = store, samples, first
        self._stop, self._ready = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def _run(self) -> None:
        try:
            for sample in self._samples:
                self.store.append(sample)
                if self.store.written >= self._first:
                    self._ready.set()
                if self._stop.is_set():
                    return
        except BaseException as error:  # noqa: BLE001 - handed to the thread that reads the store
            self.store.failure = error
        finally:
            self._ready.set()
            close = getattr(self._samples, "close", None)
            if close is not None:
                close()

    def __enter__(self) -> Refill:
        self._thread.start()
        self._ready.wait()
        if self.store.failure is not None:
            raise self.store.failure
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join(timeout=60)
