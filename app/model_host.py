"""Holds the model that answers, and exchanges it when the model folder gets another."""

import asyncio
import logging
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

from anyio.to_thread import run_sync

from app.errors import ApiError, release_frames
from app.metrics.counters import Metrics
from app.rows.reader import RowReader
from data_ingestion.handoff import PipelineError
from data_ingestion.schema import Contract
from models.artifact import MANIFEST, PICKLE, SCORER, SavedModel, ScorerModel, load_scorer_model

logger = logging.getLogger(__name__)

EXCHANGE_S = 0.5  # in which a stage has renamed the files of a model into place, one after the other
LOOKS = 10  # at the folder in this time

Stamp = tuple[int, ...] | None  # what changes when a file is replaced; None when there is none


@dataclass(frozen=True)
class Served:
    """A model with what its contract generates. A request takes it once, so its answer comes from one version."""

    model: SavedModel | ScorerModel
    reader: RowReader

    @cached_property
    def version(self) -> str:
        """The model's version."""
        return self.model.manifest.model_version

    @property
    def contract(self) -> Contract:
        """The contract the model was trained under."""
        return self.model.contract

    @cached_property
    def is_light(self) -> bool:
        """Whether one answer takes so little time that nobody is kept waiting by it."""
        return isinstance(self.model, ScorerModel)

    @cached_property
    def labels(self) -> list[str]:
        """The classes as JSON names, in the order of the probabilities."""
        return [str(label) for label in self.model.manifest.classes or []]

    def add_uncertainty(self, answer: dict[str, Any], shares: Sequence[float] | None) -> None:
        """Add the interval around a prediction, or the classes that it may as well be; nothing where neither is known.

        Parameters
        ----------
        answer : with `prediction`; gets `interval` or `prediction_set`
        shares : the probabilities of a classification
        """
        uncertainty = self.model.manifest.uncertainty
        if uncertainty is None:
            return
        if uncertainty.kind == "intervals":
            answer["interval"] = uncertainty.bound(answer["prediction"])
        else:
            classes = self.model.manifest.classes or []
            answer["prediction_set"] = [classes[place] for place in uncertainty.find_members(shares or ())]


class ModelHost:
    """Loads the model of a folder, watches the folder, and keeps serving the old model when a new one is bad.

    One task does all the loading, so there are never two loads at once, and the last model written wins.
    """

    def __init__(self, folder: Path, poll_s: float, metrics: Metrics) -> None:
        self.folder = folder
        self.poll_s = poll_s
        self.metrics = metrics
        self.served: Served | None = None
        self.refused: str | None = "it has not been loaded yet"  # why the folder's model is not the one served
        self._seen: tuple[Stamp, ...] = (None, None, None)

    @property
    def version(self) -> str | None:
        """The version of the model that is served, if any is."""
        return None if self.served is None else self.served.version

    def require(self) -> Served:
        """Return the current model.

        Raises
        ------
        ApiError : 503 with the reason and the command to type
        """
        if self.served is None:
            reason = self.refused or ""
            raise ApiError(503, f"No model is loaded: {reason}" + ("" if "Run" in reason else " Run: make run"))
        return self.served

    async def start(self) -> None:
        """Load the model; where it is refused, see whether its files are just being exchanged, and load it then.

        A worker that begins in such a moment has no earlier model to answer with.
        """
        await self.reload()
        for _ in range(LOOKS):
            if self.served is not None or not any(self._seen):
                return
            await asyncio.sleep(EXCHANGE_S / LOOKS)
            if self.has_news():
                await self.reload()

    async def watch(self) -> None:
        """Look at the folder for ever, and load what is new there."""
        while True:
            await asyncio.sleep(self.poll_s)
            if self.has_news():
                await self.reload()

    def has_news(self) -> bool:
        """Return whether the manifest was replaced; after a refusal, also whether another file of the model was."""
        manifest, *others = stamp_folder(self.folder)
        return manifest != self._seen[0] or (self.refused is not None and tuple(others) != self._seen[1:])

    async def reload(self) -> None:
        """Load the folder's model beside the current one and exchange them; a bad one is reported once."""
        self._seen = stamp_folder(self.folder)
        try:
            self.served = await run_sync(load_served, self.folder, abandon_on_cancel=True)
            self.refused = None
            self.metrics.set_model(self.served.version)
            self.metrics.count_load("served")
            logger.info("serving model %s from %s", self.served.version, self.folder)
        except PipelineError as err:
            known, self.refused = self.refused, hide_paths(str(err), self.folder)
            if self.refused != known:
                self.metrics.count_load("refused")
                logger.error("the model was refused, %s: %s", self._say_what_serves(), err)
            release_frames(err)
        except Exception as err:  # whatever a model does when it is opened, the server stays up
            known, self.refused = self.refused, f"it cannot be opened ({type(err).__name__})."
            if self.refused != known:
                self.metrics.count_load("refused")
                logger.exception("the model cannot be opened, %s", self._say_what_serves())
            release_frames(err)

    def _say_what_serves(self) -> str:
        return f"still serving {self.served.version}" if self.served else "serving none"


def load_served(folder: Path) -> Served:
    """Verify and load the model of a folder.

    Raises
    ------
    PipelineError : the model is not there, or a check fails
    """
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # small requests: more threads only get in each other's way
    model = load_scorer_model(folder)
    return Served(model, RowReader(model.contract))


def stamp_folder(folder: Path) -> tuple[Stamp, ...]:
    """Return the stamps of manifest, pickle and scorer."""
    return tuple(_stamp(folder / name) for name in (MANIFEST, PICKLE, SCORER))


def _stamp(path: Path) -> Stamp:
    try:
        status = path.stat()
    except OSError:
        return None
    return status.st_mtime_ns, status.st_size, status.st_ino


def hide_paths(message: str, folder: Path) -> str:
    """Return a message without the server's paths."""
    message = message.replace(f"{folder}{os.sep}", "").replace(str(folder), "the model folder")
    return message.replace(sys.prefix, "this environment")
