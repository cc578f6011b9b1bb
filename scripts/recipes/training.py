"""One training in one folder: its command, whether it may go on there, how far it is."""

import hashlib
import math
import re
from pathlib import Path
from typing import IO, Callable, List, Optional, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf

from corpora.steps import BINARIZED
from fairseq_admin.analysis.logs import read_log, read_logs
from fairseq_admin.arguments import hydra_config
from fairseq_admin.errors import UserError
from fairseq_admin.files import take_lock, whole_file, writing
from fairseq_admin.methods import by_stack, method_of, title
from fairseq_admin.outcome import Outcome
from recipes.code import PACKAGE, TRAINED_BY, code_of
from recipes.configs import CONFIGS, load_config, quoted, said
from recipes.ends import outcome_of, target_entropy
from recipes.processes import Job, run_job

# overrides of decoding, and of when a training stops, which goes on from there
DECIDE_NOTHING = ("generation.", "optimization.stop_time_hours", "dataset.num_workers")
DECIDE_NOTHING += ("common.log_", "common.tensorboard_logdir")
# the epoch that has ended, if one has, and the updates
SAVED_LINE = re.compile(
    r"Saved checkpoint .*?(?:/checkpoint(\d+))?\.pt \(epoch \d+ @ (\d+) updates"
)
# that a training starts or goes on, that it is out of time, and that it has ended
ENDS = re.compile(
    r"(Loaded checkpoint|No existing checkpoint found|Start iterating over samples)"
    r"|(Stopping training due to cumulative_training_time)|(done training in|finished already)"
)
EPOCH_LINE = re.compile(r"epoch (\d+):\s+(\d+) / (\d+) ")


class Training:
    """A config of configs/, trained on DATA/bin into *folder* with hydra *overrides*.

    Raises:
        UserError: for a config or a residual method that does not exist.
    """

    def __init__(self, name: str, data: Path, folder: Path, overrides: Sequence[str] = ()) -> None:
        if ":" in str(folder):
            raise UserError(f"{folder}: give a folder without ':', where fairseq ends a path")
        self.name, self.data, self.folder = name, data, folder
        self.overrides = list(overrides)
        self.config = OmegaConf.merge(load_config(name))  # a copy
        for override in overrides:
            if not override.startswith("~"):
                OmegaConf.update(self.config, *said(override))
        residual = str(OmegaConf.select(self.config, "model.residual", default="admin"))
        by_stack(residual)  # an override may name a method that does not exist
        self.method = method_of({"residual": residual})
        self.log = folder / "train.log"

    def inputs(self) -> str:
        """Hash of all that decides the training: config, overrides, data and code."""
        given = [o for o in self.overrides if not o.lstrip("+").startswith(DECIDE_NOTHING)]
        digest = hashlib.sha256("\n".join(given).encode())
        digest.update(OmegaConf.to_yaml(load_config(self.name), sort_keys=True).encode())
        digest.update(code_of(TRAINED_BY).encode())
        files = []
        manifest = self.data / "manifest.json"  # of scripts/prepare.sh: has the sums of all files
        if manifest.exists():
            files.append(manifest)
        elif (self.data / "bin" / "made.json").exists():
            raise UserError(f"{self.data} is not finished: run the step prepare to its end")
        else:
            binarized = (self.data / "bin").iterdir()
            files += sorted(p for p in binarized if p.suffix in BINARIZED)
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def check_languages(self) -> None:
        """Raise UserError where the data is not of the languages of the config."""
        for lang in (self.config.task.source_lang, self.config.task.target_lang):
            if not (self.data / "bin" / f"dict.{lang}.txt").is_file():
                raise UserError(
                    f"{self.data} holds no {lang}: give its languages, as -- task.source_lang=zh "
                    "task.target_lang=en"
                )

    def claim(self) -> None:
        """Make the folder, or make sure that it is of the same inputs; by several machines at once.

        Raises:
            UserError: where it is of other inputs, cannot be made, or not be decoded from later.
        """
        stamp, inputs = self.folder / "inputs.sha256", self.inputs()
        with writing(self.folder):
            self.folder.mkdir(parents=True, exist_ok=True)
            there = list(self.folder.iterdir())
            if not stamp.exists() and all(path.name.startswith("inputs.") for path in there):
                with whole_file(stamp) as f:
                    f.write(inputs)
        if not stamp.exists() or stamp.read_text() != inputs:
            raise UserError(
                f"{self.folder} was made from another config, code or data: give another folder, "
                "or remove it"
            )

    def arguments(self, folders: Sequence[str] = ("run",)) -> List[str]:
        """Of fairseq-hydra-train, from any folder."""
        return [
            *("--config-dir", str(CONFIGS), "--config-name", self.name),
            f"task.data={quoted(str(self.data / 'bin'))}",
            f"checkpoint.save_dir={quoted(str(self.folder))}",
            f"common.user_dir={quoted(str(PACKAGE))}",
            *(f"hydra.{kind}.dir={quoted(str(self.folder))}" for kind in folders),
            *self.overrides,
        ]

    def trained(self) -> bool:
        """Whether a log says that training came to its end: to the last update, or to what the
        config has it stop at, but not for want of time."""
        logs = (self.log, self.folder / "hydra_train.log")
        return any(self.ended(log.read_text(errors="replace")) for log in logs if log.exists())

    def ended(self, log: str) -> bool:
        """The same of the text of one log."""
        limits = [self.config.optimization.get(k) or math.inf for k in ("max_epoch", "max_update")]
        for done in SAVED_LINE.findall(log):
            if any(int(n or 0) >= limit for n, limit in zip(done, limits)):
                return True
        late = False
        for _, stopped, done in ENDS.findall(log):
            if done and not late:
                return True
            late = bool(stopped)
        return False

    def crashed(self) -> bool:
        """Whether it broke off for what no restart mends: gradients or loss that are no numbers."""
        return read_logs(str(self.folder)).crashed

    def over(self) -> bool:
        """Whether there is nothing more to train."""
        return self.trained() or self.crashed()

    def outcome(self, stopped: bool = False) -> Outcome:
        """What became of it, or would if it ended now; *stopped* where it was stuck."""
        task = self.config.task
        entropy = target_entropy(self.data / "bin", task.source_lang, task.target_lang)
        updates = self.config.optimization.get("max_update") or None
        return outcome_of(read_logs(str(self.folder)), entropy, updates, stopped)

    def progress(self) -> str:
        """Where the training stands."""
        points = read_log(str(self.log)).train
        update, ppl = points[-1] if points else (0, float("nan"))
        total = self.config.optimization.get("max_update")
        return f"{title(self.method)} update {update}{f'/{total}' if total else ''} ppl {ppl:.2f}"

    def share(self) -> float:
        """Share of the epochs or updates that is done, 0 to 1, whichever comes first."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        shares = [0.0]
        found: Optional[Tuple[str, ...]] = (EPOCH_LINE.findall(text) or [None])[-1]
        limits = {k: self.config.optimization.get(k, 0) for k in ("max_epoch", "max_update")}
        if found and limits["max_epoch"]:
            epoch, position, length = map(int, found)
            shares.append((epoch - 1 + position / length) / limits["max_epoch"])
        points = read_log(str(self.log)).train
        if points and limits["max_update"]:
            shares.append(points[-1][0] / limits["max_update"])
        return max(shares)

    def composed(self, overrides: Sequence[str] = ()) -> DictConfig:
        """The whole configuration as fairseq-hydra-train composes it.

        Raises:
            UserError: for an override that fairseq does not know.
        """
        arguments = self.arguments(())
        return hydra_config(arguments[1], self.name, [*arguments[4:], *overrides])

    def locked_log(self, machines: int = 1) -> Optional[IO[str]]:
        """The log of what is started here: train.log, or the first that no machine writes; None
        where trainings of this folder write all of them."""
        names = (
            [self.log.name] if machines == 1 else [f"machine{n + 1}.log" for n in range(machines)]
        )
        for name in names:
            with writing(self.folder / name):
                log = open(self.folder / name, "a")  # noqa: SIM115  the caller closes it
                if take_lock(log):
                    return log
            log.close()
        return None

    def run(self, command: List[str], tell: Callable[[str], None], machines: int = 1) -> None:
        """Run *command* into a log, telling how far it is; UserError when it fails."""
        before, log = self.share(), self.locked_log(machines)
        if log is None:
            raise UserError(f"a training into {self.folder} is running still")
        with log:
            run_job(
                Job("training", command, log, folder=self.folder),
                lambda seconds: tell(self.progress() + self.remaining(seconds, before)),
            )

    def remaining(self, seconds: float, before: float) -> str:
        """Time left, when enough was done in *seconds* since the share was *before*."""
        share = self.share()
        if share <= before:
            return ""
        left = seconds / (share - before) * (1 - share)
        return f", {left / 3600:.1f} h left" if left > 3600 else f", {left / 60:.0f} min left"
