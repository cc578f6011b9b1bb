"""Decoding speed of an exported model against fairseq-generate's, for scripts/bench.py."""

import logging
import multiprocessing
import statistics
import tempfile
import time
from argparse import Namespace
from concurrent.futures import ProcessPoolExecutor
from typing import Any, Callable, Dict, Iterator, List, Tuple

import ctranslate2
import torch
from fairseq import checkpoint_utils, utils
from fairseq.dataclass.configs import GenerationConfig

from bench.training import paired
from fairseq_admin.checkpoints.fold import fold_checkpoint
from fairseq_admin.serving.export import export_model

BEAM = 5
BATCH_SENTENCES = 100  # of fairseq
BATCH_TOKENS = 1024  # of CTranslate2, padding included; the default of `fairseq-admin translate`
WEIGHTS = ("float32", "int8")

Decoded = Tuple[Dict[int, str], int, float]  # pieces by sentence id, tokens, seconds


class Fairseq:
    """What fairseq-generate does between loading and printing."""

    def __init__(self, checkpoint: str, data: str, subset: str) -> None:
        models, cfg, self.task = checkpoint_utils.load_model_ensemble_and_task(
            [checkpoint], arg_overrides={"data": data}
        )
        self.models = models
        self.cuda = torch.cuda.is_available()
        for model in models:
            model.prepare_for_inference_(cfg)
            if self.cuda:
                model.cuda()
        self.task.load_dataset(subset)
        generation = GenerationConfig(beam=BEAM, max_len_a=1.2, max_len_b=10)
        self.generator = self.task.build_generator(models, generation)
        self.dataset = self.task.dataset(subset)
        positions = utils.resolve_max_positions(
            self.task.max_positions(), *[model.max_positions() for model in models]
        )
        self.batches = list(
            self.task.get_batch_iterator(
                dataset=self.dataset,
                max_sentences=BATCH_SENTENCES,
                max_positions=positions,
                required_batch_size_multiple=1,
            ).next_epoch_itr(shuffle=False)
        )

    def size(self) -> str:
        """Layers and width."""
        cfg = self.models[0].cfg
        return f"{cfg.encoder.layers}-{cfg.decoder.layers}, d{cfg.encoder.embed_dim}"

    def sources(self) -> Dict[int, List[str]]:
        """The subset's source pieces by sentence id, without the end symbol."""
        words = self.task.source_dictionary
        return {
            int(i): words.string(self.dataset[i]["source"]).split()
            for batch in self.batches
            for i in batch["id"]
        }

    def decode(self) -> Decoded:
        """Translate the subset; the end of a sentence counts as a token."""
        words, texts, tokens = self.task.target_dictionary, {}, 0
        start = time.perf_counter()
        for batch in self.batches:
            sample = utils.move_to_cuda(batch) if self.cuda else batch
            hypotheses = self.task.inference_step(self.generator, self.models, sample)
            for i, best in zip(batch["id"].tolist(), hypotheses):
                texts[i] = words.string(best[0]["tokens"])
                tokens += len(best[0]["tokens"])
        return texts, tokens, time.perf_counter() - start


class Exported:
    """What `fairseq-admin translate` does between segmenting and joining."""

    def __init__(self, folder: str, sources: Dict[int, List[str]], threads: int) -> None:
        device = "cuda" if torch.cuda.is_available() else "cpu"
        self.sources = sources
        self.translator = ctranslate2.Translator(
            folder, device=device, inter_threads=1 if device == "cuda" else threads, intra_threads=1
        )
        longest = max(map(len, sources.values())) + 1
        self.max_len = int(1.2 * longest + 10)

    def decode(self) -> Decoded:
        """The same as :meth:`Fairseq.decode`."""
        start = time.perf_counter()
        results = self.translator.translate_batch(
            list(self.sources.values()),
            beam_size=BEAM,
            max_decoding_length=self.max_len,
            max_batch_size=BATCH_TOKENS,
            batch_type="tokens",
        )
        texts = {i: " ".join(r.hypotheses[0]) for i, r in zip(self.sources, results)}
        tokens = sum(len(r.hypotheses[0]) + 1 for r in results)
        return texts, tokens, time.perf_counter() - start


def in_process(kind: type, *arguments: Any) -> Callable[[str], Any]:
    """An engine in a process of its own, where no other library's threads are: what it is called
    with is the name of a method, what it returns that method's result."""
    spawn = multiprocessing.get_context("spawn")
    pool = ProcessPoolExecutor(1, spawn, start, (kind, torch.get_num_threads(), arguments))
    return lambda method: pool.submit(call, method).result()


def start(kind: type, threads: int, arguments: tuple) -> None:
    """Make the engine of this process."""
    global engine
    logging.disable(logging.WARNING)
    torch.set_num_threads(threads)
    engine = kind(*arguments)


def call(method: str) -> Any:
    """Call a method of this process's engine."""
    return getattr(engine, method)()


def bench_decoding(options: Namespace) -> Iterator[Dict[str, Any]]:
    """Decode one subset with fairseq and with the exported model in turn, `options.pairs` times.

    Rows of tokens/s (medians), of ratios to fairseq's (median and quartiles, pair by pair), and
    of the share of translations that are fairseq's to the letter.
    """
    checkpoint, data = options.decode
    threads = torch.get_num_threads()
    engines: Dict[str, Callable[[str], Any]] = {}
    with tempfile.TemporaryDirectory() as folder:
        plain = f"{folder}/folded.pt"
        fold_checkpoint(checkpoint, plain)
        engines["fairseq"] = in_process(Fairseq, plain, data, options.subset)
        model, sources = map(engines["fairseq"], ("size", "sources"))
        for weights in WEIGHTS:
            export_model(plain, data, f"{folder}/{weights}", quantization=weights)
            engines[weights] = in_process(Exported, f"{folder}/{weights}", sources, threads)
        speeds: Dict[str, List[float]] = {name: [] for name in engines}
        texts: Dict[str, Dict[int, str]] = {}
        for pair in range(options.pairs + 1):  # the first is not counted
            for name in list(engines) if pair % 2 else list(engines)[::-1]:
                texts[name], tokens, seconds = engines[name]("decode")
                if pair:
                    speeds[name].append(tokens / seconds)
    for name in engines:
        ratios = [s / f for s, f in zip(speeds[name], speeds["fairseq"])]
        same = sum(text == texts["fairseq"][i] for i, text in texts[name].items())
        yield {
            "model": model,
            "engine": "fairseq-generate" if name == "fairseq" else f"exported, {name}",
            "threads": threads,
            "sentences": len(sources),
            "tokens_per_s": round(statistics.median(speeds[name])),
            **paired(ratios),
            "same": round(same / len(sources), 4),
        }
