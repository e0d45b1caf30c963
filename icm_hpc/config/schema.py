"""Every setting: frozen dataclasses with their defaults, units and ranges.

The comments of a field, above it and at its end, are its meaning in docs/settings.md and in `--help` (describe.py).
"""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

from ..core.energy import OBJECTIVES
from ..core.growth import FIRST_LABELS
from ..core.layout import LAYOUTS
from ..core.methods import METHODS
from ..core.scorings import SCORINGS
from ..core.search import SCHEDULES
from ..core.types import Annealing
from ..engines import DEFAULT, ENGINES
from .place import ClusterConfig, RunConfig, ServerConfig, nodes_for
from .ranges import require, require_at_least, require_file_names, require_one_of

ANNEALING = Annealing()  # its defaults are those of the settings

# What a setting left empty is, by search.protocol: the published search, and what we correct in it.
PROTOCOLS: dict[str, dict[str, str]] = {
    "default": {
        "search.method": "blocks",
        "search.objective": "calibrated",
        "search.layout": "trie",
        "search.scoring": "exact",
        "search.stalled_repair": "stop",
        "search.result": "best",
        "task.draw": "groups",
    },
    "reference": {
        "search.method": "single",
        "search.objective": "margin",
        "search.layout": "reference",
        "search.scoring": "top20",
        "search.stalled_repair": "repeat",
        "search.result": "last",
        "task.draw": "blocks",
    },
}


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """What is served, and the engine's options; a preset of configs/model/ sets them."""

    name: str = "smol"  # set by the preset, or by the folder of the weights
    # vllm; openai: a completions API that someone else runs; stub: deterministic answers without a model, for tests.
    engine: str = DEFAULT
    path: str = ""  # a folder of weights, or a Hugging Face name
    embedded: str | None = None  # weights that need no download: smollm2 or tiny
    revision: str | None = None  # commit, tag or branch on Hugging Face
    # The server's name for the model. Default: model.name; of a running server, the only model that it lists.
    served_name: str | None = None
    shape: dict[str, Any] = field(
        default_factory=dict
    )  # keys of the model's config.json, for plans without its weights
    weights_gb: float | None = None  # size of the weights, for plans, where not all parameters have dtype
    dtype: str = "auto"  # as vLLM's --dtype: auto, bfloat16, float16, float32
    quantization: str | None = None  # such as fp8; default: as the weights say
    kv_cache_dtype: str | None = None  # fp8 holds twice the tokens; default: dtype
    max_model_len: int = 8192  # context length, in tokens
    top_logprobs: int | None = None  # engine=openai only: top-k log-probabilities of a prompt, 1 to 20; default: 5
    tensor_parallel_size: int = 1  # GPUs that share each layer
    pipeline_parallel_size: int = 1  # groups of GPUs that hold the layers in sequence
    gpu_memory_utilization: float = 0.9  # share of each GPU's memory that vLLM takes: over 0, at most 1
    max_num_seqs: int = 256  # prompts that vLLM computes at once
    max_num_batched_tokens: int = 8192  # tokens that vLLM computes at once
    block_size: int | None = None  # tokens in a block of the prefix cache; default: vLLM's
    front_ends: int | None = None  # API server processes of a single replica; several replicas have one each
    # true: answers that do not depend on what the server computes at the same time (vLLM's batch invariance, NVIDIA GPUs only):
    # slower, and then a run can be repeated exactly (docs/reproducibility.md).
    reproducible: bool = False
    enforce_eager: bool | None = None  # true: no CUDA graphs and no compilation, so a faster start
    trust_remote_code: bool | None = None  # true: run the Python code that comes with the weights
    download_dir: str | None = None  # folder for downloaded weights; default: Hugging Face's cache
    vllm_args: dict[str, Any] = field(default_factory=dict)  # any other vLLM option, such as {max-logprobs: 50}
    env: dict[str, str] = field(default_factory=dict)  # environment variables of the engine; secrets are refused

    def __post_init__(self) -> None:
        require_one_of(self, engine=tuple(ENGINES))
        require_file_names(self, "path", "download_dir", "revision", "embedded")
        if ENGINES[self.engine].start is None:
            own = f"engine={self.engine}: has its own weights: take model={self.engine}"
            require(not self.path and not self.embedded, own)
        else:
            both = f"path={self.path} and model.embedded={self.embedded} both name weights: give one of them"
            require(not (self.path and self.embedded), both)
            require(
                bool(self.path or self.embedded), "path: no weights are named: model.path=FOLDER, or a preset: model=8B"
            )
        top = self.top_logprobs
        require(top is None or 1 <= top <= 20, f"top_logprobs={top}: 1 to 20")
        require(self.max_model_len >= 16, f"max_model_len={self.max_model_len}: at least 16 tokens")
        require_at_least(self, 1, "tensor_parallel_size", "pipeline_parallel_size", "max_num_seqs")
        require_at_least(self, 1, "max_num_batched_tokens", "block_size", "front_ends")
        require(self.weights_gb is None or self.weights_gb > 0, f"weights_gb={self.weights_gb}: over 0")
        share = self.gpu_memory_utilization
        require(0 < share <= 1, f"gpu_memory_utilization={share}: over 0, at most 1")
        for name in self.env:
            legal = re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name)
            require(legal is not None, f"env: {name!r} is not the name of a variable: letters, digits and _")

    @property
    def known_as(self) -> str:
        """Name under which our own server serves it."""
        return self.served_name or self.name

    @property
    def gpus(self) -> int:
        """GPUs that one replica needs."""
        return self.tensor_parallel_size * self.pipeline_parallel_size


@dataclass(frozen=True, slots=True)
class TaskConfig:
    """The examples to label, and the words that the labels are."""

    name: str = "reviews"  # one of the tasks in docs/your-data.md
    data: str | None = None  # a file, a folder of files, or a Hugging Face data set; default: the task's built-in rows
    subset: str | None = None  # of a Hugging Face data set, such as multiple_choice
    split: str = "train"  # of a Hugging Face data set, or of a folder
    limit: int | None = None  # label at most this many examples, whole groups, drawn by search.seed
    # Held-out rows, which only the evaluation labels: a file, or a data set, of rows like those of data.
    test: str | None = None
    test_share: float = 0.0  # or this share of the examples of data, whole groups, drawn by search.seed: 0 to 0.9
    test_limit: int | None = None  # of either, at most this many examples
    # groups: whole groups in random order; blocks: rows by position, as published. Default: set by search.protocol.
    draw: str = ""
    # What follows describes a task of your own (docs/your-data.md): the text of a row up to its label word, with columns in
    # braces, as "Review: {text}\nSentiment:"; a brace is written twice. Empty: the task is a built-in one.
    prompt: str = ""
    # Gold value -> label word, each with the space before it, as {bad: " bad", good: " good"}; a list of words where gold
    # values are 0, 1, .... Without gold labels the values are names only.
    labels: dict[str, str] = field(default_factory=dict)
    # Columns that hold id, group and gold label, as {group: product}. Default: id, consistency_id and label.
    columns: dict[str, str] = field(default_factory=dict)
    # Between rows of a group: none, at_most_one and exactly_one (of two labels: has the second), same, different; or
    # {same_if: COLUMN, else: RULE}: rows with equal values have the same label. Default: none.
    rule: dict[str, str] = field(default_factory=dict)
    preamble: str = ""  # text before all demonstrations
    separator: str = "\n\n"  # text after a demonstration
    label_words: list[str] | None = None  # replace the task's words of label 0, 1, ...; each with the space before it

    def __post_init__(self) -> None:
        require_file_names(self, "name")
        require_at_least(self, 2, "limit")
        require_at_least(self, 1, "test_limit")
        require(0 <= self.test_share <= 0.9, f"test_share={self.test_share}: 0 to 0.9")
        both = f"test={self.test} and task.test_share={self.test_share} both name held-out rows: give one of them"
        require(self.test is None or not self.test_share, both)
        require_one_of(self, draw=("", "groups", "blocks"))
        words = self.label_words
        require(words is None or len(set(words)) == len(words) >= 2, "label_words: two or more, all different")


@dataclass(frozen=True, slots=True)
class SearchConfig:
    """The search for labels: simulated annealing (Wen et al. 2025, section 3), or a baseline without a search."""

    # blocks: proposals that change many labels; single: the published search; zero_shot, random, bootstrap: baselines
    # (docs/search.md). Default: set by search.protocol.
    method: str = ""
    seed: int = 0  # of every random draw: 0 to 4294967295
    # Scorings of the whole pool that each search may do. Default, from N examples: blocks: a limit that it seldom reaches;
    # the others: none.
    scorings: int | None = None
    steps: int | None = None  # of each search, at most; default: 6 for each example for method=single, else no limit
    restarts: int = 1  # searches, from seed, seed+1, ...; the best one is the result
    pool_size: int | None = None  # examples in one search, at most; default: all
    # The folder of a finished run: no search is done, and its pool's labels are shown for all examples (icm_hpc.apply sets it).
    pool_run: str = ""
    # What becomes of more, by group. shards: each part is searched by itself; apply: one pool is searched, and its labels are
    # shown for all others, each of which costs little more than its own tokens.
    beyond: str = "shards"
    parallel_searches: int = 4  # shards and restarts that share the server at one time
    # Speculative steps: steps that are scored at once, as if each one before were rejected. Default: as many as pay off.
    ahead: int | None = None
    memo_mb: float = 16.0  # memory of each search for the scores that it keeps, and saves with its state
    # reference: the published search. Sets method, objective, layout, scoring, stalled_repair, result and task.draw where
    # they are empty.
    protocol: str = "default"
    # Order of demonstrations. trie: shares prefixes; reference: as published; grouped: the published order of evaluations.
    # Default: set by search.protocol.
    layout: str = ""
    # exact: log P of each label word; top20: as published, label names among the top 20 tokens. Default: set by
    # search.protocol.
    scoring: str = ""
    # Repair rounds that improve nothing. stop: end; repeat: continue to the limit, as published. Default: set by
    # search.protocol.
    stalled_repair: str = ""
    result: str = ""  # best: the best accepted labelling; last: as published; default: set by search.protocol
    # In nats. margin: log P(label) - log P(the others), as the published code; logprob: log P(label), as the paper;
    # calibrated: the margin less its mean over the pool, so that one label for all earns nothing. Default: set by
    # search.protocol.
    objective: str = ""
    # objective=calibrated only: the share of each label, in the order of the label words; or estimated: by what the
    # model says of each of at most 256 examples without demonstrations (docs/search.md). Default: all equal.
    label_prior: list[float] | Literal["estimated"] = field(default_factory=list)
    calibration: float = ANNEALING.calibration  # objective=calibrated only: how much of the mean is subtracted, 0 to 1
    # Subtract from each score log P(label word | the end that all texts have in common), such as "Sentiment:", so that words
    # that are frequent by themselves have no advantage (docs/search.md); scoring=exact only.
    word_prior: bool = False
    alpha: float = ANNEALING.alpha  # weight of the mean objective against one conflicting pair
    num_seeds: int = ANNEALING.num_seeds  # examples that are labelled first
    # Which they are, and how. zero_shot: those that the model is most certain of without demonstrations, in the first
    # search; later restarts begin at random. random: random ones. method=single: the first ones of the task, at random.
    first_labels: str = ANNEALING.first_labels
    # method=blocks only: once no proposal is accepted any more, labels of which the search is least certain are changed and it
    # goes on; it ends after so many of these kicks in a row that led to no better labelling. 0: none.
    kicks: int = ANNEALING.kicks
    schedule: str = ""  # how the temperature falls: formulas in docs/search.md; default: set by search.method
    initial_temperature: float | None = None  # default: set by search.method (docs/search.md)
    final_temperature: float = ANNEALING.final_temperature  # lower limit
    decay: float | None = None  # schedule=exp only: factor, over 0, at most 1; default: set by search.method
    seed_repair_rounds: int = ANNEALING.seed_repair_rounds  # rounds of repair of the seeds' conflicts, at most
    repair_rounds: int = ANNEALING.repair_rounds  # rounds of repair of a proposal's conflicts, at most
    linked_weight: float = (
        ANNEALING.linked_weight
    )  # draw weight of an unlabelled example with a labelled one in its group; others: 1

    def __post_init__(self) -> None:
        require_file_names(self, "pool_run")
        require(0 <= self.seed < 2**32, f"seed={self.seed}: 0 to 4294967295")
        require_at_least(
            self, 0, "steps", "scorings", "alpha", "num_seeds", "kicks", "seed_repair_rounds", "repair_rounds"
        )
        require_at_least(self, 0, "memo_mb")
        require(self.memo_mb <= 1e6, f"memo_mb={self.memo_mb}: at most 1000000")
        require_at_least(self, 1, "restarts", "parallel_searches", "ahead")
        require_at_least(self, 2, "pool_size")
        require_one_of(
            self,
            protocol=tuple(PROTOCOLS),
            beyond=("shards", "apply"),
            method=("", *METHODS),
            layout=("", *LAYOUTS),
            scoring=("", *SCORINGS),
            stalled_repair=("", "stop", "repeat"),
            result=("", "best", "last"),
            objective=("", *OBJECTIVES),
            first_labels=tuple(FIRST_LABELS),
            schedule=("", *SCHEDULES),
        )
        shown = f"beyond=apply shows the pool's labels, and method={self.method} shows none: leave beyond=shards"
        require(self.beyond == "shards" or self.method != "zero_shot", shown)
        first, last = self.initial_temperature, self.final_temperature
        require(last > 0 and (first is None or last <= first), "0 < final_temperature <= initial_temperature")
        require(self.decay is None or 0 < self.decay <= 1, f"decay={self.decay}: over 0, at most 1")
        require(0 <= self.calibration <= 1, f"calibration={self.calibration}: 0 to 1")
        self._check_priors()
        require(self.linked_weight > 0, f"linked_weight={self.linked_weight}: over 0")

    def _check_priors(self) -> None:
        prior, estimated = self.label_prior, self.label_prior == "estimated"
        if isinstance(prior, list):
            some = not prior or (len(prior) > 1 and min(prior) > 0 and max(prior) / sum(prior) < 1)
            require(some, "label_prior: of each label, a number over 0, none of them all of the sum")
        top = self.protocol == "reference" or (self.scoring != "" and SCORINGS[self.scoring].reads_top_tokens)
        exact = "requires the default protocol and scoring=exact, which asks for every label word"
        require(not (self.word_prior and top), f"word_prior=true: {exact}")
        require(not (estimated and top), f"label_prior=estimated: {exact}; or give the shares, as in [0.8,0.2]")
        unused = f"label_prior=estimated: objective={self.objective} uses no shares of labels; leave one of the two out"
        require(not estimated or self.objective in ("", "calibrated"), unused)


# Labels of the pool that held-out rows are labelled by: the run's own, gold labels, none, random ones, and those of
# search.method=bootstrap.
CONDITIONS = ("icm", "gold", "zero_shot", "random", "bootstrap")


@dataclass(frozen=True, slots=True)
class EvaluateConfig:
    """The held-out evaluation at the end of a run that has test rows (task.test, task.test_share)."""

    # Whose labels of the pool the test rows are given: icm: the run's own; gold; zero_shot: no pool is shown; random;
    # bootstrap (docs/evaluation.md). Default: all; with search.method=zero_shot only that.
    conditions: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        for name in self.conditions:
            require(name in CONDITIONS, f"conditions={name}: one of {', '.join(CONDITIONS)}")


@dataclass(frozen=True, slots=True)
class Config:
    """All settings of a run."""

    model: ModelConfig
    server: ServerConfig
    task: TaskConfig
    search: SearchConfig
    cluster: ClusterConfig
    run: RunConfig
    evaluate: EvaluateConfig = field(default_factory=EvaluateConfig)

    @property
    def external_url(self) -> str | None:
        """Address of a server that already runs; None if we start our own."""
        return self.server.url or ENGINES[self.model.engine].default_url

    @property
    def workers(self) -> int:
        """Processes of the engine, each with a GPU where there are any."""
        return self.model.gpus * self.server.replicas

    @property
    def nodes(self) -> int:
        """Nodes of the server: as set, or as few as have its GPUs."""
        each = self.server.gpus_per_node or self.cluster.node_gpus
        return self.server.nodes or nodes_for(self.workers, self.server.replicas, each)

    @property
    def gpus_per_node(self) -> int:
        """GPUs that the server asks for on each of its nodes."""
        asked = self.server.gpus_per_node
        return -(-self.workers // self.nodes) if asked is None else asked
