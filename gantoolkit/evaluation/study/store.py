"""The answers of a study in SQLite. Every step of a participant is one transaction, so that a crash loses no answer.

A trial is planned, then shown, then answered. If the page is reloaded between the last two, the trial is void: it is never
shown again, and a new trial replaces it.
"""

import hashlib
import json
import random
import secrets
import sqlite3
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from gantoolkit.errors import DataError, GantoolkitError
from gantoolkit.files.drives import LOCK, MAP, SYNC_FILE, find_missing_steps, report
from gantoolkit.runtime.seeds import derive_seed

__all__ = ["Answer", "Protocol", "RefusedError", "Side", "Store", "Trial", "read_trials"]

Side = Literal["left", "right"]

_SCHEMA = """
CREATE TABLE IF NOT EXISTS study (id INTEGER PRIMARY KEY CHECK (id = 1), protocol TEXT NOT NULL, algorithms TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS participants (
    id INTEGER PRIMARY KEY,
    token TEXT NOT NULL UNIQUE,
    algorithm TEXT NOT NULL,
    seed INTEGER NOT NULL,
    started REAL NOT NULL,
    finished REAL
);
CREATE TABLE IF NOT EXISTS trials (
    participant INTEGER NOT NULL REFERENCES participants (id),
    number INTEGER NOT NULL,
    practice INTEGER NOT NULL,
    real INTEGER NOT NULL,
    fake INTEGER NOT NULL,
    real_name TEXT NOT NULL,
    fake_name TEXT NOT NULL,
    real_side TEXT NOT NULL CHECK (real_side IN ('left', 'right')),
    state TEXT NOT NULL CHECK (state IN ('planned', 'shown', 'void', 'answered')),
    answer TEXT CHECK (answer IN ('left', 'right')),
    milliseconds INTEGER,
    PRIMARY KEY (participant, number)
);
"""


class RefusedError(GantoolkitError):
    """A request of a participant that is not allowed in the current state of the study."""


@dataclass(frozen=True)
class Protocol:
    """The course of a session; the defaults are those of the paper.

    Args:
        practice: Trials with feedback, which do not count.
        counted: Trials that count.
        exposure: Seconds for which both images are shown.
        max_participants: The maximum number of sessions.
    """

    practice: int = 10
    counted: int = 40
    exposure: float = 1.0
    max_participants: int = 1000


@dataclass(frozen=True)
class Trial:
    """The next trial of a participant.

    Args:
        number: Number among all trials of this participant, void ones included, from 0.
        done: Trials answered so far.
        practice: Whether it is a practice trial, which does not count.
        real: Index of the real image among all real images.
        fake: Index of the fake among the fakes of its algorithm.
        algorithm: The algorithm of the fake.
        real_side: The side of the real image.
    """

    number: int
    done: int
    practice: bool
    real: int
    fake: int
    algorithm: str
    real_side: Side


@dataclass(frozen=True)
class Answer:
    """The outcome of an answer: whether it was correct, and whether it was a practice trial with feedback."""

    correct: bool
    practice: bool


class Store:
    """The database of a study.

    Args:
        path: The SQLite file; created if it does not exist.
        protocol: The course of a session.
        real: Names of the real images.
        fakes: Names of the fakes by algorithm.

    Raises:
        DataError: If the file cannot be opened, or belongs to a study with other images, algorithms or another protocol.
    """

    def __init__(self, path: Path, protocol: Protocol, real: Sequence[str], fakes: Mapping[str, Sequence[str]]) -> None:
        self.path, self.protocol, self.real, self.fakes = path, protocol, real, fakes
        self._lock = threading.Lock()
        # Every reload during a trial voids it, so that the number of trials needs a bound.
        self._max_trials = 4 * (protocol.practice + protocol.counted)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            journal, synchronous = _choose_modes(path)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute(f"PRAGMA synchronous = {synchronous}")
            self._connection.execute(f"PRAGMA journal_mode = {journal}")
            self._connection.executescript(_SCHEMA)
            self._claim()
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path}: cannot be opened as a study database ({error})") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def begin(self) -> str:
        """Add a participant with the algorithm that has the fewest, and return the participant's secret token.

        Raises:
            RefusedError: If the study has enough participants.
        """
        token = secrets.token_urlsafe(24)
        with self._transaction() as connection:
            rows = connection.execute("SELECT algorithm, COUNT(*) FROM participants GROUP BY algorithm").fetchall()
            counts = dict.fromkeys(self.fakes, 0) | {name: count for name, count in rows if name in self.fakes}
            if sum(counts.values()) >= self.protocol.max_participants:
                raise RefusedError("this study already has enough participants; thank you for your interest")
            fewest = min(counts.values())
            algorithm = secrets.choice([name for name, count in counts.items() if count == fewest])
            connection.execute(
                "INSERT INTO participants (token, algorithm, seed, started) VALUES (?, ?, ?, ?)",
                (_digest(token), algorithm, secrets.randbits(62), time.time()),
            )
        return token

    def has_participant(self, token: str) -> bool:
        """Whether the token belongs to a participant."""
        with self._transaction() as connection:
            row = connection.execute("SELECT 1 FROM participants WHERE token = ?", (_digest(token),)).fetchone()
        return row is not None

    def next_trial(self, token: str) -> Trial | None:
        """The participant's next trial, the same one until it is shown; None if the session is over.

        Raises:
            RefusedError: If the token is unknown, or the page was reloaded too often.
        """
        with self._transaction() as connection:
            participant, algorithm, seed = self._find(connection, token)
            connection.execute(
                "UPDATE trials SET state = 'void' WHERE participant = ? AND state = 'shown'", (participant,)
            )
            done = self._count_done(connection, participant)
            if done >= self.protocol.practice + self.protocol.counted:
                return None
            practice = done < self.protocol.practice
            planned = connection.execute(
                "SELECT number, real, fake, real_side FROM trials WHERE participant = ? AND state = 'planned'",
                (participant,),
            ).fetchone()
            if planned is None:
                (number,) = connection.execute(
                    "SELECT COUNT(*) FROM trials WHERE participant = ?", (participant,)
                ).fetchone()
                if number >= self._max_trials:
                    raise RefusedError(
                        "this session was interrupted too often to continue; your answers are saved. Thank you"
                    )
                real, fake, side = self._draw(seed, number, algorithm)
                connection.execute(
                    "INSERT INTO trials (participant, number, practice, real, fake, real_name, fake_name, real_side, state) "
                    "VALUES (?, ?, ?, ?, ?, ?, ?, ?, 'planned')",
                    (participant, number, practice, real, fake, self.real[real], self.fakes[algorithm][fake], side),
                )
                planned = (number, real, fake, side)
        number, real, fake, side = planned
        return Trial(number, done, practice, real, fake, algorithm, side)

    def find_image(self, token: str, number: int, side: Side) -> tuple[str, int]:
        """The image on one side of the current trial: its algorithm (an empty string for a real image) and its index.

        Raises:
            RefusedError: If the token is unknown, or this is not the current trial.
        """
        with self._transaction() as connection:
            participant, algorithm, _ = self._find(connection, token)
            row = connection.execute(
                "SELECT real, fake, real_side FROM trials WHERE participant = ? AND number = ? AND state = 'planned'",
                (participant, number),
            ).fetchone()
        if row is None:
            raise RefusedError("these images are not available now")
        real, fake, real_side = row
        return ("", real) if side == real_side else (algorithm, fake)

    def mark_shown(self, token: str, number: int) -> None:
        """Mark the current trial as shown: it can be answered, and is never shown again.

        Raises:
            RefusedError: If the token is unknown, or this is not the current trial.
        """
        with self._transaction() as connection:
            participant, *_ = self._find(connection, token)
            changed = connection.execute(
                "UPDATE trials SET state = 'shown' WHERE participant = ? AND number = ? AND state = 'planned'",
                (participant, number),
            ).rowcount
            if not changed and self._state(connection, participant, number) != "shown":
                raise RefusedError("this trial is over; continue in your other window, or reload the page")

    def answer(self, token: str, number: int, side: Side, milliseconds: int) -> Answer:
        """Save an answer: the side that the participant takes for real. Repeating the same answer has no effect.

        Raises:
            RefusedError: If the token is unknown, or the trial was not shown or already has another answer.
        """
        with self._transaction() as connection:
            participant, *_ = self._find(connection, token)
            connection.execute(
                "UPDATE trials SET state = 'answered', answer = ?, milliseconds = ? "
                "WHERE participant = ? AND number = ? AND state = 'shown'",
                (side, milliseconds, participant, number),
            )
            row = connection.execute(
                "SELECT state, answer, real_side, practice FROM trials WHERE participant = ? AND number = ?",
                (participant, number),
            ).fetchone()
            if row is None or row[0] != "answered" or row[1] != side:
                raise RefusedError("this trial can no longer be answered; reload the page to continue")
            if self._count_done(connection, participant) == self.protocol.practice + self.protocol.counted:
                connection.execute(
                    "UPDATE participants SET finished = ? WHERE id = ? AND finished IS NULL", (time.time(), participant)
                )
        return Answer(correct=row[2] == side, practice=bool(row[3]))

    def _claim(self) -> None:
        """Register this study in a new file, or check that the file belongs to it."""
        protocol = json.dumps({key: asdict(self.protocol)[key] for key in ("practice", "counted", "exposure")})
        sets = {"": self.real, **self.fakes}
        expected = (protocol, json.dumps({name: _digest("\n".join(sets[name])) for name in sorted(sets)}))
        with self._transaction() as connection:
            row = connection.execute("SELECT protocol, algorithms FROM study").fetchone()
            if row is None:
                connection.execute("INSERT INTO study (id, protocol, algorithms) VALUES (1, ?, ?)", expected)
            elif row != expected:
                names = ", ".join(name for name in json.loads(row[1]) if name)
                raise DataError(
                    f"{self.path}: belongs to another study (of {names} with {row[0]}), or the images have changed; "
                    "choose another --database"
                )

    def _draw(self, seed: int, number: int, algorithm: str) -> tuple[int, int, Side]:
        """Draw the images and the real side of a trial, in a shuffled order that shows every image before it repeats one."""
        indices = []
        for kind, count in (("real", len(self.real)), ("fake", len(self.fakes[algorithm]))):
            cycle, position = divmod(number, count)
            order = list(range(count))
            random.Random(derive_seed(seed, kind, cycle)).shuffle(order)
            indices.append(order[position])
        side: Side = random.Random(derive_seed(seed, "side", number)).choice(("left", "right"))
        return indices[0], indices[1], side

    def _find(self, connection: sqlite3.Connection, token: str) -> tuple[int, str, int]:
        row = connection.execute(
            "SELECT id, algorithm, seed FROM participants WHERE token = ?", (_digest(token),)
        ).fetchone()
        if row is None:
            raise RefusedError("unknown session; start again from the first page")
        return row

    def _state(self, connection: sqlite3.Connection, participant: int, number: int) -> str | None:
        row = connection.execute(
            "SELECT state FROM trials WHERE participant = ? AND number = ?", (participant, number)
        ).fetchone()
        return row and row[0]

    def _count_done(self, connection: sqlite3.Connection, participant: int) -> int:
        query = "SELECT COUNT(*) FROM trials WHERE participant = ? AND state = 'answered'"
        return connection.execute(query, (participant,)).fetchone()[0]

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")


def _choose_modes(path: Path) -> tuple[str, str]:
    """The modes `journal_mode` and `synchronous` of a database: the safest ones that its drive allows.

    Raises:
        DataError: When the drive has no locks.
        OSError: When the folder cannot be written.
    """
    missing = find_missing_steps(path.parent)
    if error := missing.get(LOCK):
        raise DataError(
            f"{path}: cannot be opened as a study database: this drive cannot lock a file ({error.strerror or error}); choose "
            "--database on another drive"
        )
    if error := missing.get(SYNC_FILE):
        report(SYNC_FILE, path.parent, error)
    # A write-ahead log needs memory that processes share.
    return "DELETE" if MAP in missing else "WAL", "OFF" if SYNC_FILE in missing else "FULL"


def read_trials(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Read a study's protocol, and all its trials with their participants.

    Raises:
        DataError: If the file cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; gantoolkit study serve creates it")
    try:
        connection = sqlite3.connect(f"file:{path}?mode=ro", uri=True)
        connection.row_factory = sqlite3.Row
        try:
            study = connection.execute("SELECT protocol, algorithms FROM study").fetchone()
            rows = connection.execute(
                "SELECT p.id AS participant, p.algorithm, p.finished IS NOT NULL AS finished, t.number, "
                "t.practice, t.real_name, t.fake_name, t.real_side, t.state, t.answer, t.milliseconds FROM participants p "
                "LEFT JOIN trials t ON t.participant = p.id ORDER BY p.id, t.number"
            ).fetchall()
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise DataError(f"{path}: cannot be read as a study database ({error})") from error
    if study is None:
        raise DataError(f"{path}: contains no study")
    names = [name for name in json.loads(study["algorithms"]) if name]
    protocol = {**json.loads(study["protocol"]), "algorithms": names}
    return protocol, [dict(row) for row in rows]


def _digest(token: str) -> str:
    """Hash a secret token for storage: a reader of the file cannot answer for a participant."""
    return hashlib.sha256(token.encode()).hexdigest()
