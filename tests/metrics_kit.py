"""A core that is measured as in production, for tests of its metrics, and the parsed answers to scrapes."""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from prometheus_client.openmetrics import parser as openmetrics_parser
from prometheus_client.parser import text_string_to_metric_families
from tests.core_world import POLICY, START, make_status

from jobcloud.config import App, Job
from jobcloud.errors import Unavailable
from jobcloud.messages import Accept, Event, OffersReceived, Publish, PutApp, PutJob, StatusReceived, Subscribed, Tick
from jobcloud.model import Offer
from jobcloud.scheduler import Scheduler, Stored
from jobcloud.server.clock import Clock
from jobcloud.server.loop import Health, Phase
from jobcloud.server.metrics.exposition import Metrics, Sources
from jobcloud.server.metrics.measured import MeasuredScheduler
from jobcloud.server.metrics.tally import Tally
from jobcloud.server.tls import ServerTls

T = TypeVar("T")
OPENMETRICS = "application/openmetrics-text;version=1.0.0,text/plain;version=0.0.4;q=0.5,*/*;q=0.1"


class MeasuredWorld:
    """A measured core without a thread. It is the loop of its metrics. Its clock moves only in `tick`."""

    def __init__(self, *objects: App | Job, max_jobs: int = 1_000, leading: bool = True) -> None:
        self.at = START
        self.drift_ms = 0
        self.leading = leading
        self.problem = ""
        self.lost_notices = self.missed = 0
        self.warnings: tuple[str, ...] = ()
        self.clock = Clock(lambda: self.at + self.drift_ms, lambda: self.at - START)
        self.tally = Tally(max_jobs)
        self.listeners: list[ServerTls] = []
        sources = Sources(
            self, self.clock, lambda: (2, 300), lambda: self.warnings, lambda: self.missed, listeners=self.listeners
        )
        self.metrics = Metrics(self.tally, sources)
        self.core = self.start_core(Stored())
        for thing in objects:
            self.do(PutApp(self.at, thing) if isinstance(thing, App) else PutJob(self.at, thing))

    def start_core(self, stored: Stored, epoch: int = 1) -> MeasuredScheduler:
        self.core = MeasuredScheduler(self.tally, POLICY, stored, epoch, self.at)
        self.do(Subscribed(self.at, "framework-1", "master"))
        return self.core

    def ask(self, fn: Callable[[Scheduler], T], timeout: float = 5.0) -> T:
        if not self.leading:
            raise Unavailable("no leader here")
        return fn(self.core)

    def health(self) -> Health:
        phase = Phase.LEADING if self.leading else Phase.STANDBY
        return Health(
            phase, self.leading and not self.problem, self.problem, "", 0, self.leading, 7, 0, 5, 2_000, 3, 4, ()
        )

    def do(self, event: Event) -> list[str]:
        """Handle an event and count its notices. Returns the ids of the launched tasks."""
        effects = self.core.handle(event)
        for effect in effects:
            if isinstance(effect, Publish):
                self.tally.publish(effect)
        return [one.task_id for effect in effects if isinstance(effect, Accept) for one in effect.launches]

    def tick(self, ms: int = 0) -> list[str]:
        self.at += ms
        return self.do(Tick(self.at))

    def offer(self, *offers: Offer) -> list[str]:
        self.do(OffersReceived(self.at, offers))
        return self.tick()

    def update(self, task_id: str, state: str) -> None:
        self.do(StatusReceived(self.at, make_status(task_id, state, "u")))

    def scrape(self, accept: str = "") -> Samples:
        return Samples(*self.metrics.scrape(accept))


class Samples:
    """The samples of one answer, by name and labels."""

    def __init__(self, body: bytes, media_type: str) -> None:
        self.text = body.decode()
        parse = (
            openmetrics_parser.text_string_to_metric_families
            if media_type.startswith("application/openmetrics-text")
            else text_string_to_metric_families
        )
        #: the types of all families by name
        self.types: dict[str, str] = {}
        self.all: dict[tuple[str, frozenset[tuple[str, str]]], float] = {}
        for family in parse(self.text):
            self.types[family.name] = family.type
            for sample in family.samples:
                place = sample.name, frozenset(sample.labels.items())
                assert place not in self.all, f"{place} is there twice"
                self.all[place] = sample.value

    def __call__(self, name: str, **labels: str) -> float:
        """The value of a sample. Raises KeyError if there is none with exactly these labels."""
        return self.all[name, frozenset(labels.items())]

    def of(self, name: str) -> dict[frozenset[tuple[str, str]], float]:
        return {labels: value for (each, labels), value in self.all.items() if each == name}

    def values(self, name: str, label: str) -> set[str]:
        """The values of a label."""
        return {value for labels in self.of(name) for each, value in labels if each == label}

    def names(self) -> set[str]:
        return {name for name, _ in self.all}
