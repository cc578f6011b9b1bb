"""Translation of a stream of lines with an exported model, in order and in bounded memory."""

import os
import select
import sys
import time
from itertools import count, groupby
from typing import Any, Callable, Iterable, Iterator, List, Optional, TextIO

from fairseq_admin.errors import UserError
from fairseq_admin.scoring.moses import Detokenizer
from fairseq_admin.serving.served import Settings
from fairseq_admin.text import GZIP, MARK, UTF_16

CHUNK = 1 << 16  # bytes asked for at once, what a pipe holds
PAUSE = 0.1  # seconds without input after which what has come is translated, and not waited for
BLOCK = 100_000  # lines after which all read so far are written, were they all empty
EVERY = 30  # seconds between two lines of progress in a file, on a terminal each second


def read_lines(
    fd: int, say: Callable[[str], None] = lambda message: None
) -> Iterator[Optional[str]]:
    r"""The lines of file descriptor *fd*, None where the input pauses.

    Lines end in ``\n`` and nothing else, a ``\r`` before it is dropped, so is UTF-8's mark before
    the first. Bytes that are no UTF-8 become U+FFFD, which is *said* once; UTF-16 and NUL bytes
    raise UserError.
    """
    number, told = 0, False
    for line in raw_lines(fd):
        if line is None:
            yield None
            continue
        number += 1
        if number == 1 and line.startswith(GZIP):
            raise UserError("the input is gzipped: give what zcat makes of it")
        if b"\0" in line or (number == 1 and line.startswith(UTF_16)):
            raise UserError(
                f"line {number} of the input is UTF-16 or no text (it holds NUL bytes or a UTF-16 "
                "mark): convert it, for example by iconv -f UTF-16 -t UTF-8"
            )
        if number == 1:
            line = line.removeprefix(MARK)
        line = line.removesuffix(b"\r")
        try:
            yield line.decode("utf-8")
        except UnicodeDecodeError:
            if not told:
                say(f"line {number} is no UTF-8: what cannot be read is U+FFFD, in others too")
            told = True
            yield line.decode("utf-8", errors="replace")


def raw_lines(fd: int) -> Iterator[Optional[bytes]]:
    """The lines of file descriptor *fd* without their newlines, None where the input pauses. The
    last line needs no end."""
    rest: List[bytes] = []  # of a line whose end has not come
    while True:
        # not in read: a signal that comes just before it would wait for input
        while not select.select([fd], [], [], PAUSE)[0]:
            yield None
        data = os.read(fd, CHUNK)
        if not data:
            break
        *ends, last = data.split(b"\n")
        for end in ends:
            yield b"".join([*rest, end])
            rest = []
        rest.append(last)
    if any(rest):
        yield b"".join(rest)


def cut(model: Any, line: str) -> List[str]:
    """Tokens of *line* by the SentencePiece *model*, as fairseq-preprocess reads its pieces, in
    which whitespace may stand (a no-break space, where nothing is normalized)."""
    return " ".join(model.encode(line, out_type=str)).split() if line.strip() else []


class Progress:
    """Tells lines and tokens a second: over one line of a terminal, else now and then in a file."""

    def __init__(self, stream: TextIO) -> None:
        self.stream, self.terminal = stream, stream.isatty()
        self.lines, self.tokens = 0, 0
        self.start = self.told = time.monotonic()

    def add(self, tokens: int) -> None:
        """Count a line whose translation has *tokens* tokens."""
        self.lines += 1
        self.tokens += tokens
        now = time.monotonic()
        if now - self.told > (1 if self.terminal else EVERY):
            self.told = now
            self.stream.write(f"\r{self}" if self.terminal else f"{self}\n")
            self.stream.flush()

    def say(self, message: str) -> None:
        """A line of its own, before what is counted next."""
        erase = "\r\033[K" if self.terminal else ""
        self.stream.write(f"{erase}{message}\n")
        self.stream.flush()

    def __str__(self) -> str:
        rate = self.tokens / max(time.monotonic() - self.start, 1e-9)
        return f"{self.lines} lines, {rate:.0f} tokens/s"


class LineTranslator:
    """An exported folder, ready to translate lines of raw text.

    Args:
        folder: what `fairseq-admin export` wrote.
        beam: hypotheses kept; 1 is greedy search.
        lenpen: a hypothesis' log-probability is divided by its length (with the end of the
            sentence) to this power.
        max_len: most tokens of a translation.
        batch_tokens: most tokens of a batch, padding included.
        threads: sentences' batches translated at once on a CPU; all its cores by default.
        device: `cpu`, `cuda`, or `auto`, which takes a GPU where there is one.

    Raises:
        UserError: for a folder that is not whole, or a device that is not there.
    """

    def __init__(
        self,
        folder: str,
        beam: int = 5,
        lenpen: float = 1.0,
        max_len: int = 200,
        batch_tokens: int = 1024,
        threads: Optional[int] = None,
        device: str = "cpu",
        progress: Optional[Progress] = None,
    ) -> None:
        settings = Settings.load(folder)
        import ctranslate2
        import sentencepiece

        def processor(name: Optional[str]):
            if name is None:
                return None
            try:
                return sentencepiece.SentencePieceProcessor(model_file=os.path.join(folder, name))
            except (OSError, RuntimeError):
                raise UserError(f"{folder} is damaged: {name} is no SentencePiece model") from None

        self.source = processor(settings.source_sentencepiece)
        self.target = processor(settings.target_sentencepiece)
        self.steps = settings.steps()
        moses = "moses" in (settings.text or "").split()
        self.detokenize = moses and Detokenizer(settings.target_lang)
        self.longest_source = settings.source_positions - 1  # the end of the sentence takes one
        self.longest_target = min(max_len, settings.target_positions - 1)
        self.progress = progress or Progress(sys.stderr)
        if device == "auto":
            device = "cuda" if ctranslate2.get_cuda_device_count() else "cpu"
        workers = (threads or len(os.sched_getaffinity(0))) if device == "cpu" else 1
        try:
            self.translator = ctranslate2.Translator(
                folder, device=device, inter_threads=workers, intra_threads=1
            )
        except (RuntimeError, ValueError) as error:
            raise UserError(f"CTranslate2 cannot load {folder}: {error}") from None
        self.decoding = {
            "beam_size": beam,
            "length_penalty": lenpen,
            # one more than wanted: what is as long has found no end, and is cut
            "max_decoding_length": self.longest_target + 1,
            "max_input_length": 0,  # lines are cut here, and told
            "max_batch_size": batch_tokens,
            "batch_type": "tokens",
        }

    def translate(self, lines: Iterable[Optional[str]]) -> Iterator[str]:
        """Translations of *lines*, one for each and in their order; a line without a token gives
        an empty one. None stands for a pause: all that came before it is given before the next
        line is asked for."""
        seen, read, written = count(), count(1), count(1)
        for (pause, _), group in groupby(lines, lambda line: (line is None, next(seen) // BLOCK)):
            if not pause:
                tokens = (self.encode(line, number) for line, number in zip(group, read))
                results = self.translator.translate_iterable(tokens, **self.decoding)
                for result, number in zip(results, written):
                    yield self.text(result.hypotheses[0], number)

    def encode(self, line: str, number: int) -> List[str]:
        """Tokens of a line, no more than the model has positions for."""
        if self.steps:
            line = self.steps(line)
        tokens = cut(self.source, line) if self.source else line.split()
        if len(tokens) > self.longest_source:
            self.progress.say(
                f"line {number}: {len(tokens)} tokens, the model takes {self.longest_source}: "
                "the rest of the line is not translated"
            )
            del tokens[self.longest_source :]
        return tokens

    def text(self, tokens: List[str], number: int) -> str:
        """The translation of line *number*, whose tokens these are."""
        if len(tokens) > self.longest_target:
            self.progress.say(
                f"line {number}: its translation is cut at {self.longest_target} tokens"
            )
            del tokens[self.longest_target :]
        self.progress.add(len(tokens))
        text = self.target.decode(tokens) if self.target else " ".join(tokens)
        if self.detokenize:
            text = self.detokenize(text)
        return text.replace("\n", " ")  # which SentencePiece may spell byte by byte
