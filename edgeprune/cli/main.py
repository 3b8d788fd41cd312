"""`edgeprune`: reads the arguments, runs one verb and turns every outcome into an exit code.

Exit codes: 0 done, 1 findings, 2 user error (at most two lines on stderr), 70 a bug (traceback), 130 interrupted,
141 the reader of stdout went away.
"""

from __future__ import annotations

import errno
import io
import os
import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

from edgeprune import __version__
from edgeprune.cli import build, check, doctor, eval, export, profile, run, show, sweep
from edgeprune.cli import list as list_verb
from edgeprune.cli.arguments import Parser, UsageError
from edgeprune.errors import EdgepruneError, UserError

BUG, INTERRUPTED, READER_GONE = 70, 130, 141
VERBS = (export, build, run, profile, eval, sweep, check, show, list_verb, doctor)
#: errors of the disk or of the place written to: the user's to fix wherever they arise.
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


def entry() -> NoReturn:
    """The console script."""
    # Official builds of onnxruntime from 1.29 on write below the home directory and report usage; read at their start.
    os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
    sys.exit(main(sys.argv[1:]))


def main(arguments: Sequence[str]) -> int:
    """Runs one command line and returns its exit code; never raises."""
    _prepare_streams()
    try:
        code = _run(arguments)
        sys.stdout.flush()
    except BrokenPipeError:
        _drop_stdout()
        return READER_GONE
    except OSError as error:
        _drop_stdout()
        return _report(UserError(f"cannot write the output: {error.strerror or error}."))
    return code


def build_parser() -> Parser:
    """The whole grammar; building it imports no stage."""
    parser = Parser(
        prog="edgeprune",
        description="Prune the visual tokens of a vision-language model inside its graph, and run the result.",
        epilog="`edgeprune VERB --help` explains a verb.",
    )
    parser.add_argument("--version", action="version", version=f"edgeprune {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", required=True, title="verbs")
    for verb in VERBS:
        name = verb.__name__.rpartition(".")[2]
        summary = (verb.__doc__ or "").strip().splitlines()[0]
        sub = verbs.add_parser(name, help=summary, description=summary)
        verb.add_arguments(sub)
        sub.set_defaults(verb=verb.run)
    return parser


def _run(arguments: Sequence[str]) -> int:
    try:
        options = build_parser().parse_args(arguments)
        return int(options.verb(options))
    except EdgepruneError as error:
        return _report(error)
    except KeyboardInterrupt:
        _say("interrupted")
        return INTERRUPTED
    except MemoryError:
        return _report(UserError("out of memory; use a smaller model or free some memory."))
    except SystemExit as stop:  # --help and --version
        return stop.code if isinstance(stop.code, int) else 0
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.errno in _DISK_ERRORS:
            place = f" {error.filename}" if error.filename else " the output"
            return _report(UserError(f"cannot write{place}: {error.strerror}."))
        return _bug()
    except Exception:
        return _bug()


def _prepare_streams() -> None:
    """Closed streams become /dev/null; characters that the terminal's encoding lacks are escaped, not fatal."""
    sys.stdout = sys.stdout or open(os.devnull, "w")  # noqa: SIM115
    sys.stderr = sys.stderr or open(os.devnull, "w")  # noqa: SIM115
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _report(error: EdgepruneError) -> int:
    """Prints an error in one line, plus a pointer to --help for a wrong command line; returns its exit code."""
    _say(str(error))
    if isinstance(error, UsageError):
        print(f"try `{error.program} --help`", file=sys.stderr)
    return error.exit_code


def _say(text: str) -> None:
    print("edgeprune:", " ".join(text.split()), file=sys.stderr)


def _bug() -> int:
    traceback.print_exc()
    _say("this is a bug; please report the lines above")
    return BUG


def _drop_stdout() -> None:
    """Points stdout at nothing, or the interpreter would fail once more when it flushes at exit."""
    nothing = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nothing, sys.stdout.fileno())
    os.close(nothing)
