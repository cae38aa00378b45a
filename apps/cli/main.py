"""Entry of the command `circuits`: finds the command, parses its options, runs it, and turns errors into one line.

Only the standard library is imported here, so that help is quick and Ctrl-C is always caught.
"""

from __future__ import annotations

import contextlib
import difflib
import importlib.util
import logging
import os
import re
import shlex
import signal
import sys
import traceback
from collections.abc import Iterator, Sequence
from types import FrameType

from apps import memory
from apps.cli.errors import UsageError

_OURS = ("zoo", "circuits", "sae", "apps")
DONE, FAILED, BAD_INPUT, INTERRUPTED = 0, 1, 2, 130
"""Exit codes: done; anything unexpected (or a check that failed); bad input, with one line that says why; Ctrl-C, as of
any program that a shell runs."""


def main(argv: Sequence[str] | None = None) -> int:
    """Run `circuits` with the arguments `argv` (default: the process's own) and return its exit code."""
    arguments = [*(sys.argv[1:] if argv is None else argv)]
    if argv is None:
        for number in (signal.SIGTERM, getattr(signal, "SIGHUP", signal.SIGTERM)):
            if signal.getsignal(number) is not signal.SIG_IGN:  # as under `nohup`
                signal.signal(number, _stop)  # so that it cleans up as Ctrl-C does
        # Read when torch is loaded. OpenMP's threads spin while they wait for each other, and where other programs
        # want the cores too they spin for whole time slices: measured 40 times slower on a small net, two threads.
        os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
        memory.reuse()
    debug = "--debug" in arguments or os.environ.get("CIRCUITS_DEBUG", "0") not in ("", "0")
    with _logging(debug):
        return _run(arguments, debug)


@contextlib.contextmanager
def _logging(debug: bool) -> Iterator[None]:
    """Log to stderr, warnings of libraries only with `--debug`; logging is as before once the context is left."""
    root, warned = logging.getLogger(), logging.getLogger("py.warnings")
    levels = root.level, warned.level
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(logging.Formatter("circuits: %(levelname)s: %(message)s"))
    if debug:  # other libraries' debug messages are theirs to read
        handler.addFilter(lambda record: record.levelno > logging.INFO or record.name.startswith(_OURS))
    root.addHandler(handler)
    root.setLevel(logging.DEBUG if debug else logging.WARNING)
    warned.setLevel(logging.WARNING if debug else logging.CRITICAL)
    logging.captureWarnings(True)
    try:
        yield
    finally:
        logging.captureWarnings(False)
        root.removeHandler(handler)
        root.setLevel(levels[0])
        warned.setLevel(levels[1])


def _run(arguments: list[str], debug: bool) -> int:
    """Run the command. An error becomes an exit code and one line on stderr."""
    try:
        code = _dispatch(arguments)
        sys.stdout.flush()
        return code
    except KeyboardInterrupt as stop:
        if debug:
            traceback.print_exc()
        return _print_error(str(stop) or "interrupted: nothing was written; the same command starts again", INTERRUPTED)
    except BrokenPipeError:
        _discard_output()
        return DONE
    except SystemExit as stop:  # how tyro and rich end the program
        return stop.code if isinstance(stop.code, int) else DONE if stop.code is None else FAILED
    except UsageError as error:
        return _print_error(str(error), BAD_INPUT)
    except Exception as error:
        if debug:
            traceback.print_exc()
        if _is_bad_input(error):
            return _print_error(str(error), BAD_INPUT)
        if isinstance(error, ImportError | AttributeError):
            from zoo.common.installation import installation_problem

            if problem := installation_problem():
                return _print_error(problem, FAILED)
        detail = " ".join(str(error).split())[:300]
        return _print_error(f"unexpected {type(error).__name__}: {detail} (--debug shows where)", FAILED)


def _dispatch(arguments: list[str]) -> int:
    if arguments[:1] == ["--complete"]:  # what a shell asks when Tab is pressed
        from apps.cli.output.completion.words import complete

        print("\n".join(complete(" ".join(arguments[1:]))))
        return DONE
    missing = [name for name in ("tyro", "rich") if importlib.util.find_spec(name) is None]
    if missing:
        raise UsageError(f"the command line needs {' and '.join(missing)}: pip install 'vision-circuits[cli]'")
    from apps.cli.output import help_page
    from apps.cli.registry import COMMANDS, load_command

    if not arguments or arguments[0] in ("-h", "--help", "help"):
        if arguments[:1] == ["help"] and len(arguments) > 1:
            return _dispatch([*arguments[1:], "--help"])
        help_page.show()
        return DONE
    if arguments[0] in ("--version", "-V"):
        help_page.show_version()
        return DONE
    name, rest = arguments[0], arguments[1:]
    if any(command.startswith(f"{name} ") for command in COMMANDS):
        if not rest or rest[0] in ("-h", "--help"):
            help_page.show(name)
            return DONE
        name, rest = f"{name} {rest[0]}", rest[1:]
    if name not in COMMANDS:
        close = difflib.get_close_matches(name[:80].lower(), list(COMMANDS), n=3, cutoff=0.5)
        hint = f" Nearest: {', '.join(close)}." if close else ""
        what = "option" if name.startswith("-") else "command"
        raise UsageError(f"no {what} {_printable(name, 60)!r}.{hint} `circuits --help` lists the commands")
    from apps.cli.parsing import parse
    from apps.cli.runner import execute

    command = parse(load_command(name), f"circuits {name}", rest)
    return execute(command, name, invocation=shlex.join(["circuits", *arguments]))


def _is_bad_input(error: BaseException) -> bool:
    # zoo.errors comes with torch; an error of ours can only be raised once it has been imported.
    errors = sys.modules.get("zoo.errors")
    return errors is not None and isinstance(error, errors.CircuitsError)


def _printable(text: str, limit: int) -> str:
    # what cannot be printed, and the space around it, is one space; other spaces may stand in a quoted path
    line = re.sub(r" *\n[\n ]*", " ", "".join(c if c.isprintable() else "\n" for c in text[: 4 * limit])).strip()
    return line if len(line) <= limit else line[: limit - 1] + "…"


def _print_error(message: str, code: int) -> int:
    """Print a message as one line on stderr; returns `code`."""
    with contextlib.suppress(OSError, ValueError):
        print(f"circuits: {_printable(message, 600)}", file=sys.stderr, flush=True)
    return code


def _discard_output() -> None:
    """Send what is left in stdout's buffer to nowhere, so that Python does not complain at exit."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _stop(number: int, frame: FrameType | None) -> None:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
