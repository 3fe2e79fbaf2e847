"""One cell of the laboratory: a seed and a variant, from the world to the numbers.

Everything depends on the seed: world, base, rows, adapter, probes. Training takes the package's public path, as
in the README's "As a library": encoder, ``prepare_examples``, ``SafeKeyTrainer``.
"""

from __future__ import annotations

import hashlib
import json
import math
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from safekey_peft.lab.base_model import BaseSizes, content_key, ensure_base_model
from safekey_peft.lab.demo import CAUTION
from safekey_peft.lab.preference import PreferenceSizes, tune_preferences
from safekey_peft.lab.results import Record
from safekey_peft.lab.tuning_set import TuningSet, TuningSizes, build_tuning_set
from safekey_peft.lab.variants import Variant
from safekey_peft.lab.world import Request, World

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

PACKAGE = Path(__file__).parents[1]
DETERMINING_ROOMS = ("core", "data", "model", "hosts")
DETERMINING_LAB_FILES = (
    *("vocabulary", "world", "tokenizer", "tuning_set", "probes", "base_model"),
    *("evaluation", "measurement", "experiment", "preference"),
)
LINEAR_LAYERS = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
LOGGED_LOSSES = ("loss", "safekey/loss_sft", "safekey/loss_prefix", "safekey/loss_rto", "safekey/loss_key",
                 "safekey/loss_head_understanding", "safekey/loss_head_context")  # fmt: skip

OnProgress = Callable[[str, int, int], None]
"""Called with what is being done, steps done and steps planned."""


@dataclass(frozen=True, slots=True)
class TrainingSizes:
    """Tuning of the adapter; the same for every variant, and as in the demo.

    At a rate of 5e-3 the outcome hangs on the seed: over three seeds attacks in unseen wrappers succeeded in .27 to .92
    after plain SFT and in .43 to .68 with the query mask, at 2e-3 in .75 to .95 and in .13 to .49.
    """

    epochs: int = 8
    batch: int = 16
    learning_rate: float = 2e-3
    lora_r: int = 8
    lora_alpha: int = 16
    most_steps: int = -1


@dataclass(frozen=True, slots=True)
class LabSizes:
    """All sizes of the experiment; they are part of a cell's digest."""

    base: BaseSizes = field(default_factory=BaseSizes)
    training: TrainingSizes = field(default_factory=TrainingSizes)
    preferences: PreferenceSizes = field(default_factory=PreferenceSizes)
    probes: int = 50
    tuning: dict[str, int] = field(default_factory=dict)
    """Changes of the tuning set for every variant; a variant's own changes go before them."""


@dataclass(frozen=True, slots=True)
class Cell:
    """A seed and a variant at some sizes."""

    seed: int
    variant: Variant
    sizes: LabSizes = field(default_factory=LabSizes)

    @property
    def name(self) -> str:
        """How progress and logs name it."""
        return f"seed {self.seed}, {self.variant.name}"

    def configuration(self) -> dict[str, Any]:
        """Return everything that a user can set, resolved."""
        configuration = {
            "seed": self.seed,
            "trained": self.variant.trained,
            "safekey": self.variant.config().model_dump() if self.variant.trained else None,
            "tuning": asdict(self.tuning_sizes()),
            "training": asdict(self.sizes.training) if self.variant.trained else None,
            "base": asdict(self.sizes.base),
            "probes": self.sizes.probes,
        }
        if self.variant.preferences:
            configuration["preferences"] = asdict(self.sizes.preferences)
        return configuration

    def tuning_sizes(self) -> TuningSizes:
        """Return the sizes of the tuning set."""
        return replace(self.variant.sizes(), **{**self.sizes.tuning, **self.variant.tuning})

    def digest(self) -> str:
        """Return a key of the configuration; a cell with a result under the same key is not run again."""
        return hashlib.sha256(json.dumps(self.configuration(), sort_keys=True).encode()).hexdigest()[:16]

    def base_path(self, workdir: Path) -> Path:
        """Return where this cell's base is, once it is trained."""
        return workdir / f"base-{content_key(self.seed, self.sizes.base)}"


def code_digest() -> str:
    """Return a key of the code that determines a result; report, progress and command line do not."""
    digest = hashlib.sha256()
    files = [PACKAGE / "config.py", *(PACKAGE / "lab" / f"{name}.py" for name in DETERMINING_LAB_FILES)]
    for room in DETERMINING_ROOMS:
        files += sorted((PACKAGE / room).rglob("*.py"))
    for path in files:
        digest.update(f"{path.relative_to(PACKAGE)}\n".encode() + path.read_bytes())
    return digest.hexdigest()[:16]


def train_base(cell: Cell, workdir: Path, on_progress: OnProgress) -> dict[str, float]:
    """Train the base of a cell's seed, or find it; return its gate.

    Raises:
        SafeKeyError: the base missed its gate.
    """
    base = ensure_base_model(
        World(cell.seed), workdir, cell.sizes.base, lambda done, planned, _: on_progress("train base", done, planned)
    )
    return base.gate


def run_cell(cell: Cell, workdir: Path, on_progress: OnProgress) -> Record:
    """Tune and measure one cell.

    Args:
        cell: what to run.
        workdir: holds the bases.
        on_progress: told about the progress.

    Returns: the record, ready for JSON, less the digest of the code. Apart from ``seconds`` it is the same on every run
        on the same machine.

    Raises:
        SafeKeyError: the base missed its gate, or a loss has no rows.
    """
    from safekey_peft.lab.evaluation import load_model
    from safekey_peft.lab.tokenizer import build_tokenizer

    started = time.monotonic()
    gate = train_base(cell, workdir, on_progress)
    prepared = time.monotonic()
    tuning = build_tuning_set(World(cell.seed), cell.tuning_sizes())
    tokenizer = build_tokenizer()
    model: Any = load_model(cell.base_path(workdir))
    training: dict[str, Any] = {"steps": 0, "losses": [], "rows": None}
    if cell.variant.trained:
        model, training = tune(cell, model, tuning, on_progress)
    if cell.variant.preferences:
        steps = cell.sizes.training.most_steps
        model, training["preference_losses"] = tune_preferences(
            model, tuning, cell.sizes.preferences, cell.seed, steps, lambda: _progress_callback(on_progress)
        )
    tuned = time.monotonic()
    measured = measure(cell, model, tokenizer, on_progress)
    ended = time.monotonic()
    return {
        "seed": cell.seed,
        "variant": cell.variant.name,
        "title": cell.variant.title,
        "digest": cell.digest(),
        "configuration": cell.configuration(),
        "versions": versions(),
        "caution": CAUTION,
        "base_gate": gate,
        "training": training,
        **measured,
        "seconds": {
            "base": round(prepared - started, 1),
            "train": round(tuned - prepared, 1),
            "measure": round(ended - tuned, 1),
        },
    }


def tune(
    cell: Cell, model: Any, tuning: TuningSet, on_progress: OnProgress
) -> tuple[Any, dict[str, Any]]:
    """Train an adapter on the base with the variant's losses.

    Returns: the tuned model with its adapter and head, and what the trainer logged.
    """
    from peft import LoraConfig, get_peft_model
    from transformers import DataCollatorForSeq2Seq, PrinterCallback, TrainingArguments, set_seed

    from safekey_peft import SafeKeyCollator, SafeKeyExampleEncoder, SafeKeyTrainer
    from safekey_peft.data.preparation import as_source_rows, prepare_examples
    from safekey_peft.lab.tokenizer import build_tokenizer

    config, sizes = cell.variant.config(), cell.sizes.training
    tokenizer = build_tokenizer()
    tokenizer.padding_side = "right"
    encoder = SafeKeyExampleEncoder(tokenizer, config, sequence_len=256, seed=cell.seed)
    examples, report = prepare_examples(as_source_rows(tuning.rows), encoder)
    plain = [document_record(tokenizer, row["text"]) for row in tuning.documents]
    set_seed(cell.seed)
    model = get_peft_model(
        model,
        LoraConfig(
            r=sizes.lora_r, lora_alpha=sizes.lora_alpha, lora_dropout=0.0,
            target_modules=LINEAR_LAYERS, task_type="CAUSAL_LM",
        ),
    )  # fmt: skip
    stock = DataCollatorForSeq2Seq(tokenizer, label_pad_token_id=-100)
    collator: Any = SafeKeyCollator(tokenizer.pad_token_id)
    if not config.any_active:
        columns = ("input_ids", "attention_mask", "labels")

        def collator(features: Any) -> Any:
            return stock([{name: feature[name] for name in columns} for feature in features])

    with tempfile.TemporaryDirectory() as folder:
        trainer = SafeKeyTrainer(
            model=model,
            args=TrainingArguments(
                folder, use_cpu=True, seed=cell.seed, num_train_epochs=sizes.epochs, max_steps=sizes.most_steps,
                per_device_train_batch_size=sizes.batch, learning_rate=sizes.learning_rate, weight_decay=0.0,
                lr_scheduler_type="cosine", optim="adamw_torch", logging_steps=10, logging_first_step=True,
                save_strategy="no", report_to="none", disable_tqdm=True, dataloader_pin_memory=False,
                remove_unused_columns=False,
            ),
            train_dataset=[*examples, *plain],
            data_collator=collator,
            processing_class=tokenizer,
            safekey_config=config,
            callbacks=[_progress_callback(on_progress)],
        )  # fmt: skip
        trainer.remove_callback(PrinterCallback)
        trainer.train()
    losses = [_losses(entry) for entry in trainer.state.log_history if "loss" in entry]
    return trainer.model, {"steps": trainer.state.global_step, "losses": losses, "rows": report.counts()}


def document_record(tokenizer: PreTrainedTokenizerBase, text: str) -> dict[str, Any]:
    """Return a document as a plain SFT example: loss on every token, as Axolotl's type ``completion`` has it."""
    ids = [*tokenizer(text)["input_ids"], tokenizer.eos_token_id]
    return {"input_ids": ids, "attention_mask": [1] * len(ids), "labels": list(ids)}


def measure(
    cell: Cell,
    model: Any,
    tokenizer: PreTrainedTokenizerBase,
    on_progress: OnProgress,
) -> dict[str, Any]:
    """Ask a model all probes of its world."""
    from safekey_peft.lab.evaluation import generate, rates_by_column
    from safekey_peft.lab.measurement import (
        build_key_probes,
        head_aucs,
        key_sentence_shares,
        refusal_positions,
    )
    from safekey_peft.lab.probes import build_probes

    world, count = World(cell.seed), cell.sizes.probes
    tuned = requests_never_asked(cell)
    probes = build_probes(world, tuned, count)
    key_probes = build_key_probes(world, tuned, count)
    model.eval()
    on_progress("ask", 0, 2)
    responses = generate(model, tokenizer, [probe.prompt for probe in probes])
    on_progress("ask", 1, 2)
    return {
        "columns": rates_by_column(probes, responses),
        "refusal_positions": refusal_positions(probes, responses),
        "key_sentence": key_sentence_shares(model, tokenizer, key_probes),
        "head_auc": head_aucs(model, tokenizer, key_probes),
    }


def requests_never_asked(cell: Cell) -> frozenset[Request]:
    """Return the harmful requests that no probe repeats: those of the full tuning set.

    A smaller set's requests are the first of them, so every variant of a seed is asked the same.
    """
    sizes = cell.tuning_sizes()
    full = max(sizes.harmful_plain, TuningSizes().harmful_plain)
    return build_tuning_set(World(cell.seed), replace(sizes, harmful_plain=full)).harmful_requests


def versions() -> dict[str, str]:
    """Return the versions that numbers depend on."""
    import platform
    from importlib.metadata import version

    names = ("torch", "transformers", "peft", "bitsandbytes", "accelerate")
    return {"python": platform.python_version(), **{name: version(name) for name in names}}


def _progress_callback(on_progress: OnProgress) -> Any:
    from transformers import TrainerCallback

    class Steps(TrainerCallback):
        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            on_progress("tune", state.global_step, state.max_steps)

    return Steps()


def _losses(entry: Mapping[str, Any]) -> dict[str, Any]:
    """Return the losses of a log line; a loss without targets since the last line is no number and is left out."""
    values = {name.removeprefix("safekey/"): entry[name] for name in LOGGED_LOSSES if name in entry}
    return {"step": entry["step"], **{name: value for name, value in values.items() if math.isfinite(value)}}
