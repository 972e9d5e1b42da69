"""A sentence-transformers model in a thread of its own: what is urgent first, the rest in slices.

The model computes one slice of texts at a time (a quarter of a second on one core), so that a query which arrives
behind a batch of 500 passages waits for the slice under way, not for the batch.
"""

from __future__ import annotations

import atexit
import os
import threading
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future
from typing import TYPE_CHECKING, Any

import numpy as np

from errors import LuminaError
from models.embedding_model import SLICE_TEXTS, Matrix, NoEmbeddingModel, Precision, compute, fast_bfloat16, load_model
from models.pair_states import Pair, PairStates, compute_pairs
from models.state_jobs import StatesJob
from models.token_states import TokenStates, compute_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

_SLICE_CHARS = 4_000
"""Text computed at a time on a CPU: about four passages of 185 tokens. Larger slices are no faster there."""
_GPU_FACTOR = 16
"""How much more a GPU takes at a time."""


class EmbeddingFailed(LuminaError):
    """The model is loaded but could not compute a text."""


class EngineClosed(LuminaError):
    """The embedder was closed while, or before, a text was computed."""


class _Job:
    """Texts of one caller and their vectors; taken longest first, so that a slice needs little padding."""

    def __init__(self, texts: Sequence[str]) -> None:
        self.texts = texts
        self.left = sorted(range(len(texts)), key=lambda n: len(texts[n]))
        self.rows: list[Matrix | None] = [None] * len(texts)
        self.done: Future[Matrix] = Future()

    def take(self, factor: int) -> list[int]:
        """The positions of the next slice; at least one."""
        places = [self.left.pop()]
        longest = max(1, len(self.texts[places[0]]))
        while self.left and len(places) < factor * SLICE_TEXTS and (len(places) + 1) * longest <= factor * _SLICE_CHARS:
            places.append(self.left.pop())
        return places

    def finish(self) -> None:
        """Hand the vectors over, if all are there."""
        if not self.left and not self.done.done() and self.done.set_running_or_notify_cancel():
            self.done.set_result(np.stack([row for row in self.rows if row is not None]))

    def fail(self, error: LuminaError) -> None:
        """Tell the caller."""
        if not self.done.done() and self.done.set_running_or_notify_cancel():
            self.done.set_exception(error)


class Engine:
    """Loads the model on first use and computes vectors, one slice at a time, in one thread.

    Args:
        model_name: see ``models.embeddings.Embedder``.
        threads: of torch; None takes half of the cores, at least one and at most four. On a busy machine two threads
            are several times slower than one, for they wait for each other.
        precision: ``auto`` is bfloat16 for matrix products where the processor has instructions for it (twice as fast,
            cosine to float32 above 0.9999) and float32 elsewhere.
        device: as torch names it; None takes a GPU when there is one.
    """

    def __init__(
        self, model_name: str, *, threads: int | None = None, precision: Precision = "auto", device: str | None = None
    ) -> None:
        self.model_name = model_name
        self._threads = threads or max(1, min(4, (os.cpu_count() or 1) // 2))
        self._precision = precision
        self._device = device
        self._lock = threading.Condition()
        self._urgent: deque[_Job] = deque()
        self._states: deque[StatesJob[Any, Any]] = deque()
        self._patient: deque[_Job] = deque()
        self._thread: threading.Thread | None = None
        self._loaded: Future[int] = Future()
        self._closed = False

    def load(self) -> Future[int]:
        """Start loading, once however many ask; the result is the number of dimensions.

        A load that failed is tried again by the next call. Its error is NoEmbeddingModel.
        """
        with self._lock:
            if self._closed:
                raise EngineClosed(f"the embedder of {self.model_name} is closed; open a new one")
            if self._thread is None:
                self._loaded = Future()
                self._thread = threading.Thread(target=self._run, name="embedding", daemon=True)
                # A thread inside torch while the interpreter goes away would end in a crash.
                atexit.register(self.close)
                self._thread.start()
            return self._loaded

    @property
    def dimensions(self) -> int | None:
        """Length of a vector, once the model is loaded."""
        done = self._loaded.done() and self._loaded.exception() is None
        return self._loaded.result() if done else None

    def submit(self, texts: Sequence[str], *, urgent: bool) -> Future[Matrix]:
        """Compute vectors of shape (len(texts), dimensions), L2-normalised; cancelling drops what is not begun."""
        job = _Job(texts)
        with self._lock:  # one hold for both: a load that fails in between would fail without this job
            self.load()
            (self._urgent if urgent else self._patient).append(job)
            self._lock.notify()
        return job.done

    def submit_pairs(self, pairs: Sequence[Pair]) -> Future[list[PairStates]]:
        """Compute the token states of (question, text) pairs; they are urgent, and few."""
        job = StatesJob(pairs, "pairs", compute_pairs)
        self._submit_states(job)
        return job.done

    def submit_tokens(self, texts: Sequence[str]) -> Future[list[TokenStates]]:
        """Compute the token states of texts; they are urgent, and few."""
        job = StatesJob(texts, "texts", compute_tokens)
        self._submit_states(job)
        return job.done

    def _submit_states(self, job: StatesJob[Any, Any]) -> None:
        with self._lock:
            self.load()
            self._states.append(job)
            self._lock.notify()

    def close(self, wait_s: float | None = None) -> None:
        """End the thread after the slice, or the loading, under way; waiting callers get EngineClosed.

        Args:
            wait_s: Do not wait for that longer than this; the interpreter's own exit still does, for torch must not be
                taken down while it computes.
        """
        with self._lock:
            self._closed = True
            self._lock.notify()
            thread = self._thread
        if thread is not None and thread is not threading.current_thread():
            thread.join(wait_s)
            if thread.is_alive():
                return
        atexit.unregister(self.close)

    def _run(self) -> None:
        try:
            model = load_model(self.model_name, self._device, self._threads)
        except NoEmbeddingModel as error:
            self._fail(error)
            return
        bfloat16 = self._precision == "bfloat16" or (self._precision == "auto" and fast_bfloat16(model))
        factor = 1 if model.device.type == "cpu" else _GPU_FACTOR
        self._loaded.set_result(int(model.get_embedding_dimension() or 0))
        while jobs := self._next():
            if not isinstance(jobs, list):
                self._compute_states(jobs, model, bfloat16)
                continue
            pairs = [(job, place) for job in jobs for place in job.take(factor)]
            try:
                vectors = compute(model, [job.texts[place] for job, place in pairs], bfloat16)
            except (RuntimeError, ValueError, TypeError, IndexError) as error:  # what torch and tokenizers raise
                reason = f"{self.model_name} cannot compute {len(pairs)} texts: {' '.join(str(error).split())[:300]}"
                for job in jobs:
                    job.fail(EmbeddingFailed(reason))
                continue
            for (job, place), vector in zip(pairs, vectors, strict=True):
                job.rows[place] = vector
            for job in jobs:
                job.finish()
        self._fail(EngineClosed(f"the embedder of {self.model_name} was closed"))

    def _compute_states(self, job: StatesJob[Any, Any], model: SentenceTransformer, bfloat16: bool) -> None:
        try:
            job.run(model, bfloat16)
        except (RuntimeError, ValueError, TypeError, IndexError, AttributeError, KeyError) as error:
            reason = " ".join(str(error).split())[:300]
            job.fail(EmbeddingFailed(f"{self.model_name} cannot read {len(job.asked)} {job.what}: {reason}"))

    def _next(self) -> list[_Job] | StatesJob[Any, Any]:
        """The jobs that take part in the next slice; none when closed.

        Token states first, for their question has been waiting for its vectors before; then all urgent ones together;
        of the patient ones one at a time, in turn.
        """
        with self._lock:
            while not self._closed:
                while self._states:
                    if not (states := self._states.popleft()).done.cancelled():
                        return states
                for waiting in (self._urgent, self._patient):
                    unfinished = [job for job in waiting if not job.done.done()]
                    waiting.clear()
                    waiting.extend(unfinished)
                if self._urgent:
                    return list(self._urgent)
                if self._patient:
                    self._patient.rotate(-1)
                    return [self._patient[-1]]
                self._lock.wait()
            return []

    def _fail(self, error: LuminaError) -> None:
        with self._lock:
            waiting: list[_Job | StatesJob[Any, Any]] = [*self._urgent, *self._states, *self._patient]
            self._urgent.clear()
            self._states.clear()
            self._patient.clear()
            self._thread = None
            loaded = self._loaded
        if not loaded.done():
            loaded.set_exception(error)
        for waits in waiting:
            waits.fail(error)
