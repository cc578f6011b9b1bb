"""The tasks: fairseq's own for translation, with the profile before training."""

import logging
import os
from dataclasses import dataclass
from typing import Any

from fairseq import utils
from fairseq.data import data_utils
from fairseq.tasks import register_task
from fairseq.tasks.translation import TranslationConfig, TranslationTask
from fairseq.tasks.translation_multi_simple_epoch import TranslationMultiSimpleEpochTask
from omegaconf import II

from fairseq_admin.data_files import (
    check_dictionaries,
    check_parts,
    described,
    read_dictionary,
    text_of,
)
from fairseq_admin.errors import UserError, one_line
from fairseq_admin.profiled_task import ProfiledConfig, ProfiledTask
from fairseq_admin.training_checks import check_validation
from fairseq_admin.watch import WatchedTask, WatchOptions

logger = logging.getLogger(__name__)


@dataclass
class TranslationAdminConfig(ProfiledConfig, WatchOptions, TranslationConfig):
    """Options of `translation_admin`: those of `translation`, how to profile, and when to warn."""

    schedule: Any = II("lr_scheduler")  # by whose name the command line would fill it


@register_task("translation_admin", dataclass=TranslationAdminConfig)
class TranslationAdminTask(ProfiledTask, WatchedTask, TranslationTask):
    """Translation between two languages."""

    cfg: TranslationAdminConfig

    @classmethod
    def setup_task(cls, cfg: TranslationAdminConfig, **kwargs):
        """As fairseq's; raises UserError for data or a dictionary that is not there, and as
        `ProfiledTask`."""
        if not cfg.data:
            raise UserError("no data: give the folder that fairseq-preprocess wrote")
        folder = utils.split_paths(cfg.data)[0]
        if not os.path.isdir(folder):
            told = "; fairseq takes ':' for the end of a path" if ":" in cfg.data else ""
            raise UserError(f"no such data folder: {os.path.abspath(folder)}{told}")
        langs = [cfg.source_lang, cfg.target_lang]
        if None in langs:
            langs = data_utils.infer_language_pair(folder)
        if None in langs:
            raise UserError(
                f"no binarized data in {os.path.abspath(folder)}: give the folder that "
                "fairseq-preprocess wrote, or name the languages by -s and -t"
            )
        for lang in langs:
            dictionary = os.path.join(folder, f"dict.{lang}.txt")
            if not os.path.exists(dictionary):
                raise UserError(
                    f"missing dictionary {dictionary}: name the languages of the data by -s and "
                    "-t (hydra: task.source_lang, task.target_lang), or run fairseq-preprocess "
                    "again"
                )
            read_dictionary(folder, lang)  # fairseq stumbles over what is none
        task = super().setup_task(cfg, **kwargs)
        dictionaries = (task.src_dict, task.tgt_dict)
        task.state.merge_state_dict({"text": described(langs, dictionaries)})
        return task

    def load_state_dict(self, state_dict) -> None:
        """As fairseq's, of a checkpoint to decode; raises UserError for one of other dictionaries
        or languages."""
        saved, here = {"task_state": state_dict}, self.state_dict()["text"]
        check_dictionaries(saved, here["dictionaries"], "a checkpoint of theirs", "the checkpoint")
        languages = text_of(saved).get("languages", here["languages"])
        if languages != here["languages"]:
            raise UserError(
                f"the checkpoint translates from {languages[0]} to {languages[1]}, not from "
                f"{here['languages'][0]} to {here['languages'][1]}: name its languages by -s and -t"
            )
        super().load_state_dict(state_dict)

    def check_training(self, cfg) -> None:
        """As `ProfiledTask`, and for a validation that cannot be."""
        super().check_training(cfg)
        check_validation(self.cfg)

    def load_dataset(self, split, epoch=1, combine=False, **kwargs):
        """As fairseq's; raises UserError for a split that is not there, holds nothing or is cut
        off. Where it has several parts, --upsample-primary's default, with which fairseq fails, is
        read as 1."""
        cfg, folders = self.cfg, utils.split_paths(self.cfg.data)
        folder = folders[(epoch - 1) % len(folders) if split == cfg.train_subset else 0]
        parts = check_parts(folder, split, cfg.source_lang, cfg.target_lang, combine)
        if parts > 1 and cfg.upsample_primary < 0:
            logger.info("%s has %d parts: each is read once (--upsample-primary 1)", split, parts)
            cfg.upsample_primary = 1
        try:
            super().load_dataset(split, epoch, combine, **kwargs)
        except FileNotFoundError:
            raise UserError(f"no split {split} in {os.path.abspath(folder)}") from None


@register_task("translation_multi_simple_epoch_admin")
class TranslationMultiSimpleEpochAdminTask(ProfiledTask, TranslationMultiSimpleEpochTask):
    """Multilingual translation. What is profiled is drawn over all pairs of languages as often as
    they are sampled."""

    @classmethod
    def setup_task(cls, args, **kwargs):
        """As fairseq's; raises UserError for data, pairs or dictionaries that are not there."""
        if not args.lang_pairs and not (args.source_lang and args.target_lang):
            raise UserError("no pairs of languages: give --lang-pairs, as de-en,fr-en")
        try:
            return super().setup_task(args, **kwargs)
        except (OSError, ValueError, KeyError, AssertionError) as error:
            told = one_line(error)
            raise UserError(f"the multilingual task cannot be set up: {told}") from error
