"""The one place that knows every path inside a run's folder, and how its small files are written."""

import dataclasses
import os
import shlex
from dataclasses import dataclass
from pathlib import Path

from ..errors import ConfigError
from .files import make_folder, read_json, write_json


@dataclass(frozen=True, slots=True)
class Endpoint:
    """Where the server of one attempt listens, and the key it requires."""

    attempt: str
    start: int  # of the engine in this attempt: 0, or more after restarts
    hosts: tuple[str, ...]  # names and addresses of its node, the most probable first
    port: int
    key: str = dataclasses.field(repr=False)
    model: str


@dataclass(frozen=True, slots=True)
class ServerExit:
    """How the server of one attempt ended."""

    attempt: str
    reason: str
    told_to_stop: bool


@dataclass(frozen=True, slots=True)
class Rendezvous:
    """Where the ranks of one start of an engine on several nodes find each other; no secret is in it."""

    attempt: str
    start: int
    address: str  # of the first node
    port: int  # of torch.distributed
    rpc_port: int  # of replicas


@dataclass(frozen=True, slots=True)
class RankExit:
    """How a rank of one start of the engine ended."""

    start: int
    how: str


@dataclass(frozen=True, slots=True)
class RestartWanted:
    """Why one start of the engine is to be ended."""

    start: int
    reason: str


@dataclass(frozen=True, slots=True)
class ServedModel:
    """Whose scores a run has."""

    name: str  # under which its server serves it
    root: str | None = None  # what that server loaded, if it says
    # Prompts (token ids) with the log-probabilities, in nats, that it gave to tokens after them; empty if it was not asked.
    prompts: tuple[tuple[int, ...], ...] = ()
    token_ids: tuple[int, ...] = ()
    logprobs: tuple[tuple[float, ...], ...] = ()  # by prompt, by token
    timed_tokens: int = 0  # of the longest prompt that was timed


@dataclass(frozen=True, slots=True)
class WordPrior:
    """What search.word_prior=true subtracts from the scores of a run."""

    premise: str  # what the texts of all examples end with
    logprobs: dict[str, float]  # log P(word | premise) of each label word, in the order of labels, nats


@dataclass(frozen=True, slots=True)
class LabelPrior:
    """What search.label_prior=estimated has found."""

    shares: dict[str, float]  # of each label word, in the order of labels; their sum is 1
    examples: int  # whose zero-shot probabilities these are the mean of
    premise: str
    logprobs: dict[str, float]  # what was subtracted from their scores, as in WordPrior


@dataclass(frozen=True, slots=True)
class RunDir:
    """A run's folder."""

    path: Path

    @property
    def config(self) -> Path:
        """The resolved settings."""
        return self.path / "config.yaml"

    @property
    def provenance(self) -> Path:
        """Versions, machine and job ids."""
        return self.path / "provenance.json"

    @property
    def lock(self) -> Path:
        """Who drives the run."""
        return self.path / "driver.lock"

    @property
    def progress(self) -> Path:
        """Where the run is, for `status`."""
        return self.path / "progress.json"

    @property
    def resume_command(self) -> str:
        """What continues the run."""
        return shlex.join(["python", "-m", "icm_hpc.resume", f"run={self.path.name}", f"run.root={self.path.parent}"])

    @property
    def no_labels(self) -> str:
        """Why the run has no labels.jsonl, and what to do."""
        return f"{self.labels} is not there: the run has not ended, or the file was removed; to write it: {self.resume_command}"

    def has_state(self) -> bool:
        """Return whether this run has saved anything that a server has answered, or labels are there."""
        saved = (*self.path.glob("shard-*/state-*"), *self.beyond.glob("piece-*"))
        return self.labels.exists() or bool(saved)

    def attempt(self, attempt: str) -> Path:
        """The folder in which the two components of one start find each other."""
        return self.path / "attempts" / attempt

    def endpoint(self, attempt: str) -> Path:
        """Where the server listens, with its key: 0600."""
        return self.attempt(attempt) / "endpoint.json"

    def server_exit(self, attempt: str) -> Path:
        """How the server ended."""
        return self.attempt(attempt) / "server-exit.json"

    def restart_wanted(self, attempt: str) -> Path:
        """Which start of the engine the driver has given up."""
        return self.attempt(attempt) / "restart-wanted.json"

    def rendezvous(self, attempt: str) -> Path:
        """Where the ranks of the engine meet."""
        return self.attempt(attempt) / "rendezvous.json"

    def rank_arrival(self, attempt: str, number: int) -> Path:
        """That the component of a node that is not the first has started."""
        return self.attempt(attempt) / f"rank-{number}.json"

    def rank_exit(self, attempt: str, number: int) -> Path:
        """How the engine ended on a node that is not the first."""
        return self.attempt(attempt) / f"rank-{number}-exit.json"

    @property
    def served_model(self) -> Path:
        """Whose scores this run has."""
        return self.path / "served-model.json"

    @property
    def measured(self) -> Path:
        """What its server was measured to do."""
        return self.path / "measured.json"

    @property
    def word_prior(self) -> Path:
        """What is subtracted from the scores of this run."""
        return self.path / "word-prior.json"

    @property
    def label_prior(self) -> Path:
        """The shares of labels that this run has estimated."""
        return self.path / "label-prior.json"

    @property
    def server_log(self) -> Path:
        """What the engine printed."""
        return self.path / "server.log"

    def rank_log(self, number: int) -> Path:
        """What the engine printed on a node that is not the first."""
        return self.path / f"server-rank-{number}.log"

    @property
    def driver_log(self) -> Path:
        """What the driver logged."""
        return self.path / "driver.log"

    @property
    def earlier_driver_log(self) -> Path:
        """What it had logged when driver.log was full and began again."""
        return self.path / "driver.log.1"

    @property
    def notify_log(self) -> Path:
        """What run.notify_command printed."""
        return self.path / "notify.log"

    @property
    def labels(self) -> Path:
        """The result: one line an example."""
        return self.path / "labels.jsonl"

    @property
    def summary(self) -> Path:
        """The result's figures."""
        return self.path / "summary.json"

    @property
    def report(self) -> Path:
        """The result as a page for people."""
        return self.path / "report.html"

    @property
    def data(self) -> Path:
        """The examples as they were when the run was submitted, without gold labels."""
        return self.path / "data.jsonl.gz"

    @property
    def gold(self) -> Path:
        """Their gold labels, which only the comparison at the end reads."""
        return self.path / "gold.json"

    @property
    def test_data(self) -> Path:
        """The held-out examples, without gold labels."""
        return self.path / "test.jsonl.gz"

    @property
    def test_gold(self) -> Path:
        """Their gold labels."""
        return self.path / "test-gold.json"

    @property
    def test(self) -> Path:
        """The folder of what held-out examples were labelled by each condition."""
        return self.path / "test"

    @property
    def pool_data(self) -> Path:
        """The examples of another run's pool, whose labels are shown for all examples of this one."""
        return self.path / "pool.jsonl.gz"

    @property
    def pool(self) -> Path:
        """The labels of that pool, with its scores."""
        return self.path / "pool.json"

    @property
    def submitit(self) -> Path:
        """What submitit keeps of its jobs."""
        return self.path / "submitit"

    def shard(self, number: int, restart: int = 0) -> Path:
        """The folder of the checkpoints and the trace of one search of a shard."""
        return self.path / (f"shard-{number:03d}" + (f"-restart-{restart}" if restart else ""))

    def lengths(self, number: int) -> Path:
        """How many tokens each example of a shard is, by which the layout orders its prompts."""
        return self.shard(number) / "lengths.json"

    @property
    def beyond(self) -> Path:
        """The folder of what was labelled beyond the pool."""
        return self.path / "beyond"

    def create(self) -> None:
        """Make the folder, for its owner only; so is all that this process makes from now on."""
        os.umask(0o077)
        try:
            for folder in (self.path, self.submitit, self.path / "attempts"):
                make_folder(folder)
                folder.chmod(0o700)  # a default ACL of the folder above goes before the umask
        except OSError as error:
            raise ConfigError(f"run.root: the folder {self.path} cannot be made: {error}") from error

    def write_endpoint(self, endpoint: Endpoint) -> None:
        """Publish where the server listens."""
        write_json(self.endpoint(endpoint.attempt), dataclasses.asdict(endpoint))

    def read_endpoint(self, attempt: str) -> Endpoint | None:
        """Return where the server of this attempt listens, or None while it does not."""
        found: Endpoint | None = read_json(self.endpoint(attempt), Endpoint)
        return found

    def write_server_exit(self, record: ServerExit) -> None:
        """Record how the server ended, for good."""
        write_json(self.server_exit(record.attempt), dataclasses.asdict(record))

    def read_server_exit(self, attempt: str) -> ServerExit | None:
        """Return how the server of this attempt ended, or None while it has not."""
        found: ServerExit | None = read_json(self.server_exit(attempt), ServerExit)
        return found

    def write_rendezvous(self, meeting: Rendezvous) -> None:
        """Announce a start of the engine to the other nodes."""
        write_json(self.rendezvous(meeting.attempt), dataclasses.asdict(meeting))

    def read_rendezvous(self, attempt: str) -> Rendezvous | None:
        """Return where the ranks meet, or None between two starts."""
        found: Rendezvous | None = read_json(self.rendezvous(attempt), Rendezvous)
        return found

    def write_rank_arrival(self, attempt: str, number: int, address: str) -> None:
        """Report to the first node that the component of this node has started."""
        write_json(self.rank_arrival(attempt, number), {"address": address})

    def has_arrived(self, attempt: str, number: int) -> bool:
        """Return whether the component of a node that is not the first has started.

        By a list of the folder: a network file system may go on saying that a file is not there which it was asked for before.
        """
        try:
            return self.rank_arrival(attempt, number).name in os.listdir(self.attempt(attempt))  # noqa: PTH208
        except FileNotFoundError:
            return False

    def write_rank_exit(self, attempt: str, number: int, start: int, how: str) -> None:
        """Tell the first node that a rank of this start has ended."""
        write_json(self.rank_exit(attempt, number), {"start": start, "how": how})

    def read_rank_exit(self, attempt: str, number: int, start: int) -> str | None:
        """Return how a rank of this start ended, or None."""
        found: RankExit | None = read_json(self.rank_exit(attempt, number), RankExit)
        return found.how if found and found.start == start else None

    def write_served_model(self, served: ServedModel) -> None:
        """Record whose scores this run has."""
        write_json(self.served_model, dataclasses.asdict(served))

    def read_served_model(self) -> ServedModel | None:
        """Return whose scores this run has, or None if it has none; earlier versions recorded the name alone."""
        found: ServedModel | None = read_json(self.served_model, ServedModel)
        return found

    def write_word_prior(self, prior: WordPrior) -> None:
        """Record what is subtracted from the scores of this run."""
        write_json(self.word_prior, dataclasses.asdict(prior))

    def read_word_prior(self) -> WordPrior | None:
        """Return what is subtracted from the scores of this run, or None if it is not measured yet."""
        found: WordPrior | None = read_json(self.word_prior, WordPrior)
        return found

    def write_label_prior(self, prior: LabelPrior) -> None:
        """Record the shares of labels that this run has estimated."""
        write_json(self.label_prior, dataclasses.asdict(prior))

    def read_label_prior(self) -> LabelPrior | None:
        """Return the shares of labels that this run has estimated, or None if it has not yet."""
        found: LabelPrior | None = read_json(self.label_prior, LabelPrior)
        return found

    def want_restart(self, attempt: str, start: int, reason: str) -> None:
        """Ask the server component to end a start of the engine that hangs, and to restart it."""
        write_json(self.restart_wanted(attempt), {"start": start, "reason": reason})

    def read_restart_wanted(self, attempt: str, start: int) -> str | None:
        """Return why this start of the engine is to be ended, or None."""
        found: RestartWanted | None = read_json(self.restart_wanted(attempt), RestartWanted)
        return found.reason if found and found.start == start else None
