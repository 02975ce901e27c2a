"""A study's answers in SQLite: every step of a participant is one transaction, so that a crash loses nothing.

A trial is planned, then shown, then answered. One that was shown and then left, because a page was reloaded, is void: it is
never shown again, and another one takes its place.
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
    """Something that a participant's page asked for and cannot have."""


@dataclass(frozen=True)
class Protocol:
    """How a session goes; the defaults are those of the paper.

    Args:
        practice: Trials with feedback, which do not count.
        counted: Trials that count.
        exposure: Seconds for which both images are seen.
        most_participants: How many sessions may be begun.
    """

    practice: int = 10
    counted: int = 40
    exposure: float = 1.0
    most_participants: int = 1000


@dataclass(frozen=True)
class Trial:
    """What a participant is shown next.

    Args:
        number: Of all trials of this participant, from 0; void ones count.
        done: Trials answered so far.
        practice: Whether it does not count.
        real: Place of the real image among the study's.
        fake: Place of the fake among its algorithm's.
        algorithm: Whose fake.
        real_side: Where the real image is.
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
    """What became of an answer: whether it was right, and whether the participant may be told."""

    correct: bool
    practice: bool


class Store:
    """The file of a study.

    Args:
        path: The SQLite file; it need not exist yet.
        protocol: How sessions go.
        real: Names of the real images.
        fakes: Names of the fakes, by algorithm.

    Raises:
        DataError: When the file cannot be opened, or belongs to a study of other algorithms or another protocol.
    """

    def __init__(self, path: Path, protocol: Protocol, real: Sequence[str], fakes: Mapping[str, Sequence[str]]) -> None:
        self.path, self.protocol, self.real, self.fakes = path, protocol, real, fakes
        self._lock = threading.Lock()
        # Those that stay away make room: a page that was reloaded too often ends its session.
        self._most_trials = 4 * (protocol.practice + protocol.counted)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
            self._connection.execute("PRAGMA journal_mode = WAL")
            self._connection.execute("PRAGMA synchronous = FULL")
            self._connection.executescript(_SCHEMA)
            self._claim()
        except (sqlite3.Error, OSError) as error:
            raise DataError(f"{path}: cannot be opened as a study's file ({error})") from error

    def close(self) -> None:
        """Close the file."""
        with self._lock:
            self._connection.close()

    def begin(self) -> str:
        """A new participant, with the algorithm that has the fewest; the secret that names the participant from now on.

        Raises:
            RefusedError: When there are enough.
        """
        token = secrets.token_urlsafe(24)
        with self._transaction() as connection:
            rows = connection.execute("SELECT algorithm, COUNT(*) FROM participants GROUP BY algorithm").fetchall()
            counts = dict.fromkeys(self.fakes, 0) | {name: count for name, count in rows if name in self.fakes}
            if sum(counts.values()) >= self.protocol.most_participants:
                raise RefusedError("this study has all the participants that it needs; thank you for coming")
            fewest = min(counts.values())
            algorithm = secrets.choice([name for name, count in counts.items() if count == fewest])
            connection.execute(
                "INSERT INTO participants (token, algorithm, seed, started) VALUES (?, ?, ?, ?)",
                (_digest(token), algorithm, secrets.randbits(62), time.time()),
            )
        return token

    def knows(self, token: str) -> bool:
        """Whether this is a participant's secret."""
        with self._transaction() as connection:
            found = connection.execute("SELECT 1 FROM participants WHERE token = ?", (_digest(token),)).fetchone()
        return found is not None

    def next_trial(self, token: str) -> Trial | None:
        """The participant's next trial, the same one until it is shown; none when the session is over.

        Raises:
            RefusedError: When there is no such participant, or the page was reloaded too often.
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
                if number >= self._most_trials:
                    raise RefusedError(
                        "this session was interrupted too often to go on; its answers are kept. Thank you"
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
        """Which image stands on a side of the trial that is at hand: the algorithm, nothing for a real one; and its place.

        Raises:
            RefusedError: When there is no such participant, or the trial is not at hand.
        """
        with self._transaction() as connection:
            participant, algorithm, _ = self._find(connection, token)
            row = connection.execute(
                "SELECT real, fake, real_side FROM trials WHERE participant = ? AND number = ? AND state = 'planned'",
                (participant, number),
            ).fetchone()
        if row is None:
            raise RefusedError("these images are not to be seen now")
        real, fake, real_side = row
        return ("", real) if side == real_side else (algorithm, fake)

    def mark_shown(self, token: str, number: int) -> None:
        """The images of a trial are about to be seen: from now on it can be answered, and is never shown again.

        Raises:
            RefusedError: When there is no such participant, or the trial is not at hand.
        """
        with self._transaction() as connection:
            participant, *_ = self._find(connection, token)
            changed = connection.execute(
                "UPDATE trials SET state = 'shown' WHERE participant = ? AND number = ? AND state = 'planned'",
                (participant, number),
            ).rowcount
            if not changed and self._state(connection, participant, number) != "shown":
                raise RefusedError("this trial is over; the study goes on in another window, or after reloading")

    def answer(self, token: str, number: int, side: Side, milliseconds: int) -> Answer:
        """Keep an answer: the side that the participant takes for the real image. The same one again changes nothing.

        Raises:
            RefusedError: When there is no such participant, the trial was not shown, or has another answer.
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
                raise RefusedError("this trial cannot be answered any more; the study goes on after reloading")
            if self._count_done(connection, participant) == self.protocol.practice + self.protocol.counted:
                connection.execute(
                    "UPDATE participants SET finished = ? WHERE id = ? AND finished IS NULL", (time.time(), participant)
                )
        return Answer(correct=row[2] == side, practice=bool(row[3]))

    def _claim(self) -> None:
        """Make the file this study's, or see that it is."""
        protocol = json.dumps({key: asdict(self.protocol)[key] for key in ("practice", "counted", "exposure")})
        sets = {"": self.real, **self.fakes}
        mine = (protocol, json.dumps({name: _digest("\n".join(sets[name])) for name in sorted(sets)}))
        with self._transaction() as connection:
            row = connection.execute("SELECT protocol, algorithms FROM study").fetchone()
            if row is None:
                connection.execute("INSERT INTO study (id, protocol, algorithms) VALUES (1, ?, ?)", mine)
            elif row != mine:
                names = ", ".join(name for name in json.loads(row[1]) if name)
                raise DataError(
                    f"{self.path}: belongs to another study, of {names} with {row[0]}, or its images have "
                    "changed since; choose another --database"
                )

    def _draw(self, seed: int, number: int, algorithm: str) -> tuple[int, int, Side]:
        """What trial `number` shows: images in a shuffled order, so that none returns before all have been seen."""
        places = []
        for kind, count in (("real", len(self.real)), ("fake", len(self.fakes[algorithm]))):
            turn, place = divmod(number, count)
            order = list(range(count))
            random.Random(derive_seed(seed, kind, turn)).shuffle(order)
            places.append(order[place])
        side: Side = random.Random(derive_seed(seed, "side", number)).choice(("left", "right"))
        return places[0], places[1], side

    def _find(self, connection: sqlite3.Connection, token: str) -> tuple[int, str, int]:
        row = connection.execute(
            "SELECT id, algorithm, seed FROM participants WHERE token = ?", (_digest(token),)
        ).fetchone()
        if row is None:
            raise RefusedError("no such session; begin at the first page")
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


def read_trials(path: Path) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """A study's protocol, and all its trials with their participants.

    Raises:
        DataError: When the file cannot be read.
    """
    if not path.is_file():
        raise DataError(f"{path}: no such file; gantoolkit study serve makes it")
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
        raise DataError(f"{path}: cannot be read as a study's file ({error})") from error
    if study is None:
        raise DataError(f"{path}: holds no study")
    names = [name for name in json.loads(study["algorithms"]) if name]
    about = {**json.loads(study["protocol"]), "algorithms": names}
    return about, [dict(row) for row in rows]


def _digest(token: str) -> str:
    """What is kept of a secret: who reads the file cannot answer for a participant."""
    return hashlib.sha256(token.encode()).hexdigest()
