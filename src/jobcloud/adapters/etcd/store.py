"""State in etcd, for a group of schedulers of which one leads.

Keys below the prefix:

    epoch               {"epoch": N, "leader": address, "token": …}: the leader's epoch, and who raised it
    head                the number of the last segment of the journal
    journal/…           all records (`jobcloud.adapters.journal`)
    election/…          the candidates, of which the oldest leads (`election`)

A batch is one transaction. It compares the value of `epoch`, the create revision of our key in the election, and the
revision at which `head` was last changed. It creates the next segment of the journal and changes `head`. So a
superseded leader writes nothing.

A transaction that gets no answer is sent again. Both requests may arrive, even minutes apart. The request that etcd
handles first changes `head`, so the other one fails. If its comparison fails, a transaction
reads `head`. If `head` contains the token of the batch, the batch was written. A batch without records also changes
`head`. So once such a batch has succeeded, no earlier request can take effect.

A batch too large for one request is split into parts. Each part is a key of its own. The last request is the
transaction that creates the segment. Parts without a segment are ignored, so a crash between the requests leaves
all of the batch or none of it. Such parts are deleted later.

The store never compacts etcd: a compaction would delete the history of all users of etcd.

Sources: https://etcd.io/docs/v3.4/learning/api/ (transactions, revisions), https://etcd.io/docs/v3.4/dev-guide/limit/
(1.5 MiB a request), https://etcd.io/docs/v3.4/op-guide/configuration/ (--max-txn-ops 128).
"""

from __future__ import annotations

import json
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from jobcloud.adapters.etcd.client import (
    AnswerTooLong,
    Denied,
    EtcdClient,
    KeyValue,
    Operation,
    Rejected,
    Transaction,
    delete,
    end_of,
    get,
    has_value,
    put,
    was_changed_at,
    was_created_at,
)
from jobcloud.adapters.etcd.election import FOLDER as _ELECTION
from jobcloud.adapters.etcd.election import Candidacy
from jobcloud.adapters.journal import Files, Image, Place, Segment, Source, Spread, check_sizes, segment_name
from jobcloud.errors import Fenced, StoreError, StoreGone, StoreUnusable
from jobcloud.messages import KIND_NAMES
from jobcloud.ports import StoredFault, StoredRecords, StoredWrite

_EPOCH, _HEAD, _JOURNAL = "epoch", "head", "journal/"
# A member of etcd accepts requests of 1.5 MiB, and 128 operations in each branch of a transaction. A transaction of
# this store has at most one piece of a segment, the marks of the segment (see journal.py), and 100 deletions.
_PIECE_BYTES = 500_000
_MAX_LEFTOVERS = 20
_MAX_RECORD_BYTES = 16 << 20
_MAX_READS = 20
# The state is read in pages of about this size.
_PAGE_BYTES = 2 << 20
_FIRST_KEYS, _MAX_KEYS = 4, 1_000


@dataclass(frozen=True, slots=True)
class _Head:
    """The number of the last segment, and the revision of etcd at which the key `head` was changed."""

    number: int
    revision: int


class EtcdStore:
    """A `Store` below the prefix of `client`. It owns `client`. Only one thread at a time may use it.

    `name` is stored with the epoch, for users. `candidacy` returns our key in the election. The epoch is raised, and
    batches are written, only while that key exists. `heard` is called with a member's time (ms) when the epoch is
    raised. `close` calls `resign`, so that the next candidate can lead at once. `requests` counts the requests to
    change the state.
    """

    def __init__(
        self,
        client: EtcdClient,
        *,
        name: str = "",
        candidacy: Callable[[], Candidacy | None] = lambda: None,
        heard: Callable[[int], object] = bool,
        resign: Callable[[], object] = bool,
    ) -> None:
        self._client = client
        self._resign = resign
        self._name = name
        self._candidacy = candidacy
        self._heard = heard
        self._image: Image | None = None
        self._head: _Head | None = None
        self._closed = False
        self._epoch = 0
        # The value that we wrote to the key `epoch`.
        self._claim = b""
        self._revision = 0
        self.requests = 0

    # ------------------------------------------------------------------------------------------------------- epoch

    def acquire(self, floor: int = 0) -> int:
        with self._translated():
            self._image = self._head = None
            token = uuid.uuid4().hex
            deadline = self._client.monotonic() + self._client.timeout_s
            while True:
                epoch, head = self._read_epoch(), self._read_head()
                if epoch is not None and token.encode() in epoch.value:
                    # Our request has taken effect. Its answer may have been lost.
                    self._epoch, self._claim, self._head = self._epoch_of(epoch.value), epoch.value, head
                    break
                if epoch is None:
                    self._check_place()
                if self._client.monotonic() > deadline:
                    raise StoreError("the epoch could not be raised: other schedulers raise it all the time")
                self._raise_epoch(token, floor, epoch, head)
        if (theirs_ms := self._client.time_ms) is not None:
            self._heard(theirs_ms)
        return self._epoch

    def _raise_epoch(self, token: str, floor: int, epoch: KeyValue | None, head: _Head | None) -> None:
        """Try once to raise the epoch. The caller reads afterwards whether this has succeeded."""
        number = max(floor, 1 + (self._epoch_of(epoch.value) if epoch else 0))
        value = json.dumps({"epoch": number, "leader": self._name, "token": token}).encode()
        compare = [was_changed_at(self._key(_EPOCH), epoch.mod_revision if epoch else 0)]
        compare += [was_changed_at(self._key(_HEAD), head.revision if head else 0)]
        candidacy = self._candidacy()
        compare += _still_candidate(candidacy)
        own = [get(candidacy.key)] if candidacy else []
        # Requests of earlier leaders may still arrive. Such requests fail, because this transaction changes `head`.
        change = [put(self._key(_EPOCH), value), put(self._key(_HEAD), _head_value(head.number if head else 0, token))]
        answer = self._transact(compare, change, own)
        self.requests += 1
        if not answer.succeeded and candidacy and _created(answer.ranges()[0]) != candidacy.revision:
            raise Fenced(f"{candidacy.key.decode()} in etcd is gone: another scheduler may lead")

    def _check_place(self) -> None:
        """Refuse a prefix that lies inside the prefix of another cluster, or contains one.

        Otherwise the outer cluster would read the keys of the inner one. The check is made only before the first epoch
        of a cluster, so that a new cluster cannot stop a running one.
        """
        parts = self._client.root.strip(b"/").split(b"/")
        outer = [b"/" + b"/".join(parts[:number]) + b"/" for number in range(1, len(parts))]
        for prefix in outer:
            # A user may have rights on our prefix alone.
            with suppress(Denied):
                if self._client.range(prefix + _EPOCH.encode()).kvs:
                    raise StoreUnusable(self._overlap("lies inside", prefix.decode()))
        for name in self._read_all():
            inner = name.removesuffix(f"/{_EPOCH}")
            if inner != name and not name.startswith((_JOURNAL, _ELECTION)):
                raise StoreUnusable(self._overlap("contains", self._text(f"{inner}/")))

    def _overlap(self, how: str, other: str) -> str:
        return (
            f"the prefix {self._text('')} {how} that of another cluster, {other}: choose another name in etcd.prefix, "
            f"or delete the keys below {other} if they are not needed"
        )

    def epoch(self) -> int:
        with self._translated():
            found = self._read_epoch()
            return self._epoch_of(found.value) if found else 0

    def _read_epoch(self) -> KeyValue | None:
        return self._one(_EPOCH)

    def _read_head(self) -> _Head | None:
        found = self._one(_HEAD)
        return _Head(self._number_of(found.value), found.mod_revision) if found else None

    def _number_of(self, value: bytes) -> int:
        number = value.partition(b" ")[0]
        if not number.isdigit() or len(number) > 16:
            raise StoreUnusable(
                f"{self._text(_HEAD)} in etcd is damaged; it was left unchanged. Stop all schedulers, "
                "and delete the key: the records are in other keys"
            )
        return int(number)

    def _epoch_of(self, value: bytes) -> int:
        """The epoch in the key's value. Raises StoreUnusable for a damaged value: a guess might reuse an old epoch."""
        try:
            epoch = json.loads(value)["epoch"]
        except (ValueError, KeyError, TypeError, RecursionError):
            epoch = None
        if type(epoch) is not int or not 0 <= epoch < 2**53:
            raise StoreUnusable(
                f"{self._text(_EPOCH)} in etcd is damaged; it was left unchanged. Stop all schedulers, delete the key, "
                "and put the state back with `jobcloud restore`"
            )
        return epoch

    # ----------------------------------------------------------------------------------------------------- writing

    def write(self, epoch: int, batch: Sequence[StoredWrite]) -> None:
        with self._translated():
            if not self._claim or epoch != self._epoch:
                raise Fenced(f"epoch {epoch} was never acquired, or was superseded")
            last = {(KIND_NAMES[write.kind], write.key): write.value for write in batch}
            check_sizes(last, lambda _: _MAX_RECORD_BYTES, "the etcd store")
            # Until this write has succeeded, the image may differ from the stored state.
            image, self._image = self._image, None
            if last:
                image = image or self._read()[0]
                self._append(image, last)
            else:
                self._commit([], self._known_head().number)
            self._image = image

    def _append(self, image: Image, last: Mapping[Place, bytes | None]) -> None:
        """Store the batch as one segment."""
        plan = image.journal.plan(last)
        number = image.journal.last + 1
        spread = Spread(number, plan.entries, _PIECE_BYTES)
        for name, data in spread.parts:
            self._put_part(name, data)
        leftovers = image.leftovers[:_MAX_LEFTOVERS]
        changes = [put(self._key(_JOURNAL + name), data) for name, data in spread.ends]
        changes += [self._deletion(segment) for segment in plan.cleaned]
        changes += [delete(self._key(_JOURNAL + name)) for name in leftovers]
        self._commit(changes, number)
        image.journal.append(Segment(number, (*spread.names,), spread.blob, spread.size), plan.entries)
        image.journal.drop(plan.cleaned)
        image.leftovers = image.leftovers[len(leftovers) :]

    def _deletion(self, segment: Segment) -> Operation:
        """Delete a segment with its parts and marks: NUMBER and everything that begins with NUMBER-."""
        key = self._key(_JOURNAL + segment_name(segment.number))
        return delete(key, end_of(key + b"-"))

    def _put_part(self, name: str, data: bytes) -> None:
        # A part has a name of its own, so a duplicate changes nothing.
        answer = self._transact(self._guards(), [put(self._key(_JOURNAL + name), data)], self._facts())
        self.requests += 1
        if not answer.succeeded:
            self._explain(answer)

    def _commit(self, changes: Sequence[Operation], number: int) -> None:
        """Perform all `changes` or none. `number`: the number of the last segment after the changes."""
        head, token = self._known_head(), uuid.uuid4().hex[:16]
        value = _head_value(number, token)
        compare = [*self._guards(), was_changed_at(self._key(_HEAD), head.revision)]
        self._head = None
        answer = self._transact(compare, [put(self._key(_HEAD), value), *changes], self._facts())
        self.requests += 1
        revision = answer.header.revision
        if not answer.succeeded:
            # An earlier request of ours may have taken effect, while its answer was lost.
            found = answer.ranges()[0]
            if not found or found[0].value != value:
                self._explain(answer)
            revision = found[0].mod_revision
        self._head = _Head(number, revision)

    def _guards(self) -> list[Operation]:
        return [has_value(self._key(_EPOCH), self._claim), *_still_candidate(self._candidacy())]

    def _facts(self) -> list[Operation]:
        """The reads from which `_explain` finds out why a comparison failed."""
        candidacy = self._candidacy()
        return [get(self._key(_HEAD)), get(self._key(_EPOCH)), *([get(candidacy.key)] if candidacy else [])]

    def _explain(self, answer: Transaction) -> None:
        """Raise the reason why a comparison of this store failed."""
        _, epoch, *own = answer.ranges()
        candidacy = self._candidacy()
        if not epoch or epoch[0].value != self._claim:
            raise Fenced(f"epoch {self._epoch} was superseded: another scheduler leads below {self._text('')}")
        if candidacy and _created(own[0]) != candidacy.revision:
            raise Fenced(f"{candidacy.key.decode()} in etcd is gone: another scheduler may lead")
        raise StoreError(f"{self._text(_HEAD)} in etcd was changed by another client, or by an earlier request of ours")

    def _known_head(self) -> _Head:
        if self._head is None:
            self._head = self._read_head()
        if self._head is None:
            raise StoreGone(f"{self._text(_HEAD)} in etcd is gone: the state was deleted under this scheduler")
        return self._head

    # ----------------------------------------------------------------------------------------------------- reading

    def load(self) -> StoredRecords:
        with self._translated():
            self._image = self._head = None
            self._image, stored, self._head = self._read()
            return stored

    def snapshot(self) -> StoredRecords:
        with self._translated():
            return self._read()[1]

    def _read(self) -> tuple[Image, StoredRecords, _Head | None]:
        """Everything below the prefix."""
        return self._interpret(self._read_all())

    def _read_all(self) -> dict[str, KeyValue]:
        """All keys below the prefix, by their names without the prefix, as of one revision of etcd."""
        for _ in range(_MAX_READS):
            try:
                return self._read_pages()
            except _Compacted:
                continue
        raise StoreError("etcd compacts its history faster than the state can be read")

    def _read_pages(self) -> dict[str, KeyValue]:
        """All keys below the prefix, by their names without the prefix.

        Raises _Compacted if the revision is compacted meanwhile.
        """
        found: dict[str, KeyValue] = {}
        key, end = self._client.root, end_of(self._client.root)
        revision, limit = 0, _FIRST_KEYS
        while True:
            try:
                page = self._client.range(key, end, limit=limit, revision=revision)
            except AnswerTooLong:
                if limit == 1:
                    raise
                limit = max(1, limit // 4)
                continue
            except Rejected as error:
                if revision and "compacted" in str(error):
                    raise _Compacted from error
                raise
            self._check_revision(page.header.revision)
            revision = revision or page.header.revision
            found.update((each.key[len(self._client.root) :].decode("utf-8", "replace"), each) for each in page.kvs)
            if not page.more:
                return found
            if not page.kvs or page.kvs[-1].key < key:
                raise StoreError("etcd answers a request for more keys with keys that were not asked for")
            key = page.kvs[-1].key + b"\0"
            size = sum(len(each.value) for each in page.kvs)
            limit = min(2 * limit, _MAX_KEYS) if size < _PAGE_BYTES / 2 else max(1, limit * _PAGE_BYTES // (2 * size))

    def _interpret(self, found: Mapping[str, KeyValue]) -> tuple[Image, StoredRecords, _Head | None]:
        image, stored = Image(), StoredRecords()
        head = found.get(_HEAD)
        last = self._number_of(head.value) if head else 0
        data = {name[len(_JOURNAL) :]: each.value for name, each in found.items() if name.startswith(_JOURNAL)}
        strange = [name for name in found if not name.startswith((_JOURNAL, _ELECTION)) and name not in (_EPOCH, _HEAD)]
        files = Files(data)
        # The head names the last segment. If this segment is missing, the loss is noticed.
        files.numbers.update({last} - {0})
        stored.faults.extend(StoredFault(self._text(name), "is of an unknown kind") for name in sorted(strange))
        advice = f"stop all schedulers, delete all keys below {self._text('')} and use `jobcloud restore`"
        image.read(files, Source("etcd", lambda name: self._text(_JOURNAL + name), data, data.get, advice), stored)
        image.journal.last = max(image.journal.last, last)
        known = _Head(last, head.mod_revision) if head else None
        return image, stored, known

    # ------------------------------------------------------------------------------------------------------ helpers

    def close(self) -> None:
        if not self._closed:
            self._closed = True
            self._resign()
            self._client.close()

    def _one(self, name: str) -> KeyValue | None:
        found = self._client.range(self._key(name))
        self._check_revision(found.header.revision)
        return found.kvs[0] if found.kvs else None

    def _transact(
        self, compare: Sequence[Operation], success: Sequence[Operation], failure: Sequence[Operation]
    ) -> Transaction:
        answer = self._client.transact(compare, success, failure)
        self._check_revision(answer.header.revision)
        return answer

    def _check_revision(self, revision: int) -> None:
        """Raises StoreGone if etcd was replaced by an older copy while we use it."""
        if revision < self._revision:
            raise StoreGone(
                f"etcd has gone back from revision {self._revision} to {revision}: its data was replaced by an older "
                "copy while this scheduler used it"
            )
        self._revision = revision

    def _key(self, name: str) -> bytes:
        return self._client.key(name)

    def _text(self, name: str) -> str:
        return self._client.key(name).decode()

    @contextmanager
    def _translated(self) -> Iterator[None]:
        if self._closed:
            raise StoreError("the store is closed")
        try:
            yield
        except UnicodeError as error:
            raise StoreError(f"etcd cannot hold this record: {error}") from error


class _Compacted(Exception):
    """The revision to be read is no longer in the history."""


def _head_value(number: int, token: str) -> bytes:
    return f"{number} {token}".encode()


def _still_candidate(candidacy: Candidacy | None) -> list[Operation]:
    return [was_created_at(candidacy.key, candidacy.revision)] if candidacy else []


def _created(found: Sequence[KeyValue]) -> int:
    return found[0].create_revision if found else 0
