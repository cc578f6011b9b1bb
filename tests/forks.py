#!/usr/bin/env python3
"""The environment's commands without their start: torch and fairseq are imported once, in a server
that forks for each command line. It never imports the plugin: each command does, as a fresh one.

`serve(folder)` fills *folder* with the commands of this environment. `fairseq-train`, `python` and
their like are this file there, run as a client: a process that hands its arguments, environment,
working directory and standard files to the server, passes signals on, and ends as the command did.
All others are links to the real ones. What a real start does otherwise: it reads Python's own
variables but PYTHONPATH, its warnings come while it imports, and it collects garbage more often.
"""

import contextlib
import os
import signal
import socket
import sys

FORKED = ["fairseq-train", "fairseq-hydra-train", "fairseq-preprocess", "fairseq-generate"]
FORKED += ["fairseq-interactive", "fairseq-validate", "fairseq-admin", "ct2-fairseq-converter"]
FORKED += ["python"]
# what the commands import, some of it late: not fairseq_cli, whose modules set up logging
PRELOADED = ["torch._dynamo", "torch.utils.tensorboard", "torch.utils.serialization"]
PRELOADED += ["matplotlib.figure", "matplotlib.backends.backend_agg", "PIL.PngImagePlugin"]
PRELOADED += ["hydra.main", "sacrebleu.metrics", "sacrebleu.significance", "sacremoses"]
PRELOADED += ["sentencepiece", "ctranslate2.converters.fairseq", "compare_mt.reporters", "jinja2"]
FAIRSEQ = ["fairseq.tasks", "fairseq.models", "fairseq.trainer", "fairseq.checkpoint_utils"]
FAIRSEQ += ["fairseq.logging.progress_bar", "fairseq.sequence_generator", "fairseq.binarizer"]
FAIRSEQ += ["fairseq.dataclass.initialize", "fairseq.quantization_utils", "fairseq.hub_utils"]
FAIRSEQ += ["fairseq.model_parallel.megatron_trainer", "fairseq.data.data_utils_fast"]
PASSED_ON = [signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGUSR1]
LONGEST = 200_000  # bytes of a command line and its environment


def client(name: str, folder: str) -> None:
    """Have the server run this command line, and end as it ends."""
    import json

    server = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    server.connect(os.path.join(folder, ".server"))
    for number in PASSED_ON:
        signal.signal(number, lambda number, _: server.send(b"%d" % number))
    words = [name, *sys.argv]
    request = json.dumps({"words": words, "environment": dict(os.environ), "folder": os.getcwd()})
    socket.send_fds(server, [request.encode()], [0, 1, 2])
    ended = server.recv(100)
    if not ended:
        sys.exit(f"{name}: the server of tests/forks.py is gone")
    status = int(ended)
    if os.WIFSIGNALED(status):
        if os.WTERMSIG(status) != signal.SIGKILL:
            signal.signal(os.WTERMSIG(status), signal.SIG_DFL)
        os.kill(os.getpid(), os.WTERMSIG(status))
    os._exit(os.WEXITSTATUS(status))


class Server:
    """Forks for each client, and tells it how its command ended."""

    def __init__(self, folder: str, until: int) -> None:
        import selectors

        self.selector = selectors.DefaultSelector()
        self.listening = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self.listening.bind(os.path.join(folder, ".server"))
        self.listening.listen(100)
        self.clients = {}  # the connection of each running command, by its pid
        self.selector.register(os.pidfd_open(until), selectors.EVENT_READ, self.end)
        self.selector.register(self.listening, selectors.EVENT_READ, self.accept)

    def run(self):
        """Serve; returns a request, in the process that is to be its command."""
        while True:
            for key, _ in self.selector.select():
                request = key.data()
                if request is not None:
                    return request

    def end(self) -> None:
        """The tests are over: nothing that they started stays."""
        for pid in self.clients:
            os.killpg(pid, signal.SIGKILL)
        os._exit(0)

    def accept(self):
        import json
        import selectors

        connection, _ = self.listening.accept()
        data, files = b"", []
        with contextlib.suppress(ConnectionError):
            data, files, _, _ = socket.recv_fds(connection, LONGEST, 3)
        if not data:  # killed before it asked
            connection.close()
            return None
        pid = os.fork()
        if pid == 0:
            os.setsid()
            for resource in (self.listening, self.selector, connection, *self.clients.values()):
                resource.close()
            for number, file in enumerate(files):
                os.dup2(file, number)
                os.close(file)
            return json.loads(data)
        for file in files:
            os.close(file)
        ending = os.pidfd_open(pid)
        self.clients[pid] = connection
        self.selector.register(connection, selectors.EVENT_READ, lambda: self.hear(pid))
        self.selector.register(ending, selectors.EVENT_READ, lambda: self.reap(pid, ending))
        return None

    def hear(self, pid: int) -> None:
        """A signal for the command, or that its client is dead, which kills it."""
        connection, number = self.clients[pid], b""
        with contextlib.suppress(ConnectionError):
            number = connection.recv(100)
        if number:
            os.kill(pid, int(number))
        else:
            self.selector.unregister(connection)
            try:
                os.killpg(pid, signal.SIGKILL)
            except ProcessLookupError:  # it has no group of its own yet
                os.kill(pid, signal.SIGKILL)

    def reap(self, pid: int, ending: int) -> None:
        self.selector.unregister(ending)
        os.close(ending)
        connection = self.clients.pop(pid)
        _, status = os.waitpid(pid, 0)
        if connection in self.selector.get_map():
            self.selector.unregister(connection)
            with contextlib.suppress(ConnectionError):  # killed as it ended
                connection.send(b"%d" % status)
        connection.close()


def end(run) -> None:
    """Do *run* as the last thing of this process: what an interpreter does at its end, but for
    taking apart its modules, which takes longer than most commands."""
    import atexit
    import threading

    code = 0
    try:
        run()
    except SystemExit as ending:
        code = ending.code
    except KeyboardInterrupt:
        code = 128 + signal.SIGINT
    except BaseException:
        sys.excepthook(*sys.exc_info())
        code = 1
    if not isinstance(code, (int, type(None))):
        print(code, file=sys.stderr)
        code = 1
    threading._shutdown()
    atexit._run_exitfuncs()
    with contextlib.suppress(BrokenPipeError):
        sys.stdout.flush()
    sys.stderr.flush()
    os._exit((code or 0) & 255)


def command(words, environment, folder) -> None:
    """Be the process of the command line *words*, of which the first is the command's name."""
    import logging
    import runpy
    import warnings
    from importlib.metadata import entry_points

    os.chdir(folder)
    os.environ.clear()
    os.environ.update(environment)
    name, *sys.argv = words
    sys.executable = os.path.join(os.path.dirname(sys.argv[0]), "python")
    sys.path[0] = os.path.dirname(sys.argv[0])
    if os.environ.get("PYTHONPATH"):
        sys.path[1:1] = os.environ["PYTHONPATH"].split(os.pathsep)
    if name == "fairseq-train":  # the only one that sets up logging before it imports fairseq
        logging.getLogger().handlers.clear()
    if name != "python":
        (entry,) = entry_points(group="console_scripts", name=name)
        sys.exit(entry.load()())
    del sys.argv[0]
    while sys.argv and sys.argv[0] in ("-u", "-W"):
        if sys.argv.pop(0) == "-u":
            sys.stdout.reconfigure(write_through=True)
        else:
            warnings.simplefilter(sys.argv.pop(0))
    sys.path[0] = ""
    what = sys.argv.pop(0)
    if what == "-c":
        code, sys.argv[:0] = sys.argv.pop(0), ["-c"]
        exec(compile(code, "<string>", "exec"), {"__name__": "__main__"})
    elif what == "-":
        sys.argv.insert(0, "-")
        exec(compile(sys.stdin.read(), "<stdin>", "exec"), {"__name__": "__main__"})
    elif what == "-m":
        runpy.run_module(sys.argv[0], run_name="__main__", alter_sys=True)
    else:
        sys.argv.insert(0, what)
        sys.path[0] = what if os.path.isdir(what) else os.path.dirname(os.path.abspath(what))
        runpy.run_path(what, run_name="__main__")


def serve(folder, until):
    """Fill *folder* with commands and start their server, which ends when the process of the number
    *until* does."""
    import subprocess
    from pathlib import Path

    real = Path(sys.executable).parent
    for path in real.iterdir():
        if path.name in FORKED:
            text = f"#!{sys.executable} -IS\n" + Path(__file__).read_text().split("\n", 1)[1]
            (folder / path.name).write_text(text)
            (folder / path.name).chmod(0o755)
        else:
            (folder / path.name).symlink_to(path)
    log = folder / ".server.log"  # mostly warnings of what is imported
    with log.open("wb") as errors:
        process = subprocess.Popen(
            [sys.executable, __file__, folder, str(until)],
            env={**os.environ, "OMP_NUM_THREADS": "1"},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=errors,
            start_new_session=True,
        )
    assert process.stdout.readline() == b"ready\n", log.read_text()


def warm_up() -> None:
    """One composition as fairseq makes it of every command line: hydra looks for its plugins, and
    the grammar of overrides is learnt."""
    from fairseq import options
    from fairseq.dataclass.utils import convert_namespace_to_omegaconf

    parser = options.get_training_parser()
    words = ["data", "--arch", "transformer", "--optimizer", "adam", "--lr-scheduler"]
    words += ["inverse_sqrt", "--criterion", "label_smoothed_cross_entropy"]
    convert_namespace_to_omegaconf(options.parse_args_and_arch(parser, words))


def serve_forever(folder: str, until: int) -> None:
    import gc
    import importlib
    import logging

    for name in PRELOADED:
        with contextlib.suppress(ModuleNotFoundError):  # torch 2.6 has fewer
            importlib.import_module(name)
    logging.getLogger().handlers.clear()  # some of these change it: fairseq's import comes first
    logging.getLogger().setLevel(logging.WARNING)
    for name in FAIRSEQ:
        importlib.import_module(name)
    warm_up()
    assert "fairseq_admin" not in sys.modules and "fairseq_cli" not in sys.modules
    signal.signal(signal.SIGINT, signal.default_int_handler)  # what a shell starts by & ignores it
    gc.freeze()  # else the first collection of each command copies all of it
    gc.set_threshold(50_000, 20, 100)
    server = Server(folder, until)
    os.write(1, b"ready\n")
    end(lambda: command(**server.run()))


if __name__ == "__main__":
    if sys.flags.isolated:
        client(os.path.basename(sys.argv[0]), os.path.dirname(os.path.abspath(sys.argv[0])))
    else:
        serve_forever(sys.argv[1], int(sys.argv[2]))
