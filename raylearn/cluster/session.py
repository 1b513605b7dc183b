"""Ray as raylearn uses it: a private one on this machine, or the cluster that was named."""

import logging
import os
import re
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from raylearn.cluster.resources import TRIAL_RESOURCE, num_local_cpus
from raylearn.data.storage import reason_of
from raylearn.errors import ClusterError
from raylearn.progress import doing

_CONNECT_SECONDS = 10.0
_LEAVE_SECONDS = 30.0
_AUTH_MODE = "RAY_AUTH_MODE"
_RAY_DATA_THREADS = ("StreamingExecutor-", "ray-data-")


@contextmanager
def ray_session(address: str | None) -> Iterator[None]:
    """Starts a private Ray, or joins the cluster at `address`, and leaves it at the end.

    Raises:
        ClusterError: no cluster answers at the address.
    """
    if address:
        _refuse_if_nobody_listens(address)
    os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
    os.environ["RAY_AIR_NEW_OUTPUT"] = "0"  # otherwise Tune prints a banner even when told to be silent
    os.environ["TUNE_DISABLE_SIGINT_HANDLER"] = "1"  # otherwise Tune answers Ctrl+C as if the trials had failed
    os.environ["RAY_BACKEND_LOG_LEVEL"] = "fatal"  # otherwise its C++ part warns of what Ray Data itself does
    with doing("loading Ray"):
        import ray

    if ray.is_initialized():
        raise ClusterError("this process uses Ray already: call ray.shutdown() first, or give its address to both")
    quiet = {"log_to_driver": False, "logging_level": logging.ERROR, "configure_logging": True}
    private = {
        "address": "local",
        "num_cpus": num_local_cpus(),
        "resources": {TRIAL_RESOURCE: 100_000},
        "include_dashboard": False,
    }
    before = signal.getsignal(signal.SIGTERM) or signal.SIG_DFL  # Ray puts a handler of its own in its place
    auth_mode = os.environ.get(_AUTH_MODE)
    try:
        try:
            with doing(f"joining the Ray cluster {address}" if address else "starting Ray"), _stderr_set_aside():
                ray.init(**({"address": address} if address else private), **quiet)
        except SystemExit as ended:  # what Ray, while it starts, makes of SIGTERM
            raise KeyboardInterrupt from ended
        except Exception as error:  # Ray itself raises bare ones, such as of a start that took too long
            where = f"the Ray cluster at {address}" if address else "a private Ray on this machine"
            cause = (str(error).splitlines() or [type(error).__name__])[0]
            raise ClusterError(f"cannot reach {where}: {cause}") from error
        # as Ctrl+C; otherwise Ray's C++ part aborts with a trace
        signal.signal(signal.SIGTERM, signal.default_int_handler)
        yield
    finally:
        with doing("leaving Ray"):
            try:
                _wait_for_ray_data()
            finally:
                ray.shutdown()
                signal.signal(signal.SIGTERM, before)
                _restore_auth_mode(auth_mode)


def _restore_auth_mode(mode: str | None) -> None:
    """Undoes what a private Ray does to its process: from then on it asks everybody for a token.

    A cluster that was started without tokens has none to show, and what its workers send back would be refused: a
    stream of results then never ends. Ray's C++ part keeps the variable and the token until it is told otherwise.
    """
    from ray._raylet import AuthenticationTokenLoader, Config  # type: ignore[attr-defined]

    if os.environ.get(_AUTH_MODE) == mode:
        return
    if mode is None:
        del os.environ[_AUTH_MODE]
    else:
        os.environ[_AUTH_MODE] = mode
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()


def _wait_for_ray_data() -> None:
    """Until Ray Data's threads have ended: one that calls Ray after its shutdown ends the process without a word."""
    deadline = time.monotonic() + _LEAVE_SECONDS
    for thread in threading.enumerate():
        if thread.name.startswith(_RAY_DATA_THREADS):
            thread.join(max(0.0, deadline - time.monotonic()))


def _refuse_if_nobody_listens(address: str) -> None:
    """Raises ClusterError if no port answers: Ray itself goes on trying for minutes. "auto" has no port to look at."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdecimal():
        try:
            socket.create_connection((host, int(port)), timeout=_CONNECT_SECONDS).close()
        except (OSError, OverflowError) as error:
            raise ClusterError(f"cannot reach the Ray cluster at {address}: {reason_of(error)}") from error


@contextmanager
def _stderr_set_aside() -> Iterator[None]:
    """While Ray starts: its C++ part tells the terminal that it was told to be quiet. What fails is raised."""
    kept = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def cause_line(error: BaseException) -> str:
    """The line of a long message of Ray's where the cause stands, such as "ValueError: no such thing"."""
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    causes = [line for line in lines if re.match(r"[\w.]+(Error|Exception|Interrupt): ", line)]
    own = [line for line in causes if not line.startswith("ray.")]
    return (own or causes or lines or [type(error).__name__])[-1]
