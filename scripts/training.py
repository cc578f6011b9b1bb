"""One training in one folder: its command, whether it may go on there, how far it is."""

import hashlib
import re
import sys
from pathlib import Path
from typing import Iterable, List, Optional, Sequence, Tuple

from omegaconf import DictConfig, OmegaConf
from record import DATA_SUFFIXES, TRAIN_LINE, curve

from fairseq_admin.errors import UserError

ROOT = Path(__file__).resolve().parent.parent
CONFIGS = ROOT / "configs"
PACKAGE = ROOT / "fairseq_admin"
BIN = Path(sys.executable).parent  # of the console commands of this environment
EPOCH_LINE = re.compile(r"epoch (\d+):\s+(\d+) / (\d+) ")


def load_config(name: str) -> DictConfig:
    """The file configs/NAME.yaml."""
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise UserError(f"no config {name} in {CONFIGS}")
    return OmegaConf.load(path)


def method_of(config: DictConfig) -> str:
    """admin, post-ln, pre-ln, or encoder/decoder where they differ."""
    if config.task._name == "translation_admin":
        return "admin"
    norms = [config.model.get(f"{stack}_normalize_before") for stack in ("encoder", "decoder")]
    kinds = ["pre-ln" if norm else "post-ln" for norm in norms]
    return kinds[0] if kinds[0] == kinds[1] else "/".join(kinds)


class Training:
    """A config of configs/, trained on DATA/bin into *folder* with hydra *overrides*.

    Args:
        code: package modules that decide the result: a folder made by others is refused.
    """

    def __init__(
        self,
        name: str,
        data: Path,
        folder: Path,
        overrides: Sequence[str] = (),
        code: Iterable[str] = (),
    ) -> None:
        self.name, self.data, self.folder = name, data, folder
        self.overrides, self.code = list(overrides), code
        values = [override.lstrip("+") for override in overrides if override[0] != "~"]
        self.config = OmegaConf.merge(load_config(name), OmegaConf.from_dotlist(values))
        self.method = method_of(self.config)
        self.log = folder / "train.log"

    def inputs(self) -> str:
        """Hash of all that decides the training: config, overrides, data and code."""
        digest = hashlib.sha256("\n".join(self.overrides).encode())
        files = [CONFIGS / f"{self.name}.yaml", *(PACKAGE / f"{name}.py" for name in self.code)]
        manifest = self.data / "manifest.json"  # of scripts/prepare.sh: has the sums of all files
        if manifest.exists():
            files.append(manifest)
        else:
            binarized = (self.data / "bin").iterdir()
            files += sorted(p for p in binarized if p.suffix in DATA_SUFFIXES)
        for file in files:
            digest.update(file.name.encode() + file.read_bytes())
        return digest.hexdigest()

    def claim(self) -> None:
        """Make the folder, or make sure that it is of the same inputs."""
        stamp = self.folder / "inputs.sha256"
        if not self.folder.exists():
            self.folder.mkdir(parents=True)
        if not any(self.folder.iterdir()):
            partial = self.folder / "inputs.partial"
            partial.write_text(self.inputs())
            partial.rename(stamp)
        elif not stamp.exists() or stamp.read_text() != self.inputs():
            raise UserError(
                f"{self.folder} was made from another config, code or data: give another folder, "
                "or remove it"
            )

    def arguments(self, folders: Sequence[str] = ("run",)) -> List[str]:
        """Of fairseq-hydra-train, from any folder."""
        return [
            *("--config-dir", str(CONFIGS), "--config-name", self.name),
            f"task.data={self.data / 'bin'}",
            f"checkpoint.save_dir={self.folder}",
            f"common.user_dir={PACKAGE}",
            *(f"hydra.{kind}.dir={self.folder}" for kind in folders),
            *self.overrides,
        ]

    def trained(self) -> bool:
        """Whether a log says that training came to its end."""
        logs = (self.log, self.folder / "hydra_train.log")
        return any(log.exists() and "done training in" in log.read_text() for log in logs)

    def progress(self) -> str:
        """Where the training stands."""
        points = curve(self.log, TRAIN_LINE)
        update, ppl = points[-1] if points else (0, float("nan"))
        total = self.config.optimization.get("max_update")
        return f"{self.method} update {update}{f'/{total}' if total else ''} ppl {ppl:.2f}"

    def share(self) -> float:
        """Share of the epochs or updates that is done, 0 to 1, whichever comes first."""
        text = self.log.read_text(errors="replace") if self.log.exists() else ""
        shares = [0.0]
        found: Optional[Tuple[str, ...]] = (EPOCH_LINE.findall(text) or [None])[-1]
        limits = {k: self.config.optimization.get(k, 0) for k in ("max_epoch", "max_update")}
        if found and limits["max_epoch"]:
            epoch, position, length = map(int, found)
            shares.append((epoch - 1 + position / length) / limits["max_epoch"])
        points = curve(self.log, TRAIN_LINE)
        if points and limits["max_update"]:
            shares.append(points[-1][0] / limits["max_update"])
        return max(shares)
