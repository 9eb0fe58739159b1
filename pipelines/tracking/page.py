"""MLflow's user interface, opened on the runs of one experiment."""

import os
import socket
import subprocess
import sys
import time
import webbrowser
from http.client import HTTPConnection, HTTPException

from align_core.errors import InputError
from pipelines.experiment.config import Experiment
from pipelines.storage.credentials import without_credentials
from pipelines.tracking.runs import client_of, prepared, tracking_uri

_PATIENCE = 120.0  # seconds that a server is given until it answers; ten are usual
_POLLED = 0.25  # seconds between two questions whether it does
_ENDING = 10.0  # seconds that it is given to end


def serve_page(experiment: Experiment, port: int) -> int:
    """Serves MLflow's user interface for the experiment's tracking store on a local port, until it is stopped.

    Once the server answers, the address of the experiment's runs is printed, and opened in a browser where there is a
    screen. Where the store is a tracking server, which has a user interface already, that is shown instead.

    Returns the exit code. Raises InputError where something else listens on the port.
    """
    uri = tracking_uri(experiment)
    if uri.startswith(("http://", "https://")):
        _show("MLflow runs at", without_credentials(uri), uri, experiment.name)
        return 0
    if _is_taken(port):
        raise InputError(f"--port: something listens on port {port} already; choose another, as --port {port + 1}")
    prepared(uri, print)
    # The URI may contain a password, and every user of this machine can read the command lines of its processes.
    variables = {**os.environ, "MLFLOW_BACKEND_STORE_URI": uri}
    command = [sys.executable, "-m", "mlflow", "ui", "--port", str(port), "--workers", "1"]
    print("MLflow is starting; its address comes as soon as it answers, after ten seconds or more", flush=True)
    server = subprocess.Popen(command, env=variables)
    try:
        if _comes_up(server, port):
            address = f"http://127.0.0.1:{port}"
            _show("MLflow, until Ctrl-C:", address, address, experiment.name)
        return server.wait()
    finally:
        _end(server)


def _show(says: str, address: str, uri: str, name: str) -> None:
    """Prints where the experiment's runs are shown, and opens them in a browser where there is one with windows."""
    number = _number_of(uri, name)
    if number is None:
        print(f"{says} {address}", flush=True)
        return
    # Without the workflow, the page would have the side bar that is for language models.
    page = f"{address.rstrip('/')}/#/experiments/{number}/runs?workflowType=machine_learning"
    print(f"{says} {page}", flush=True)
    # Without a screen, Python would open a browser for terminals, which waits for its user.
    if sys.stdout.isatty() and (
        sys.platform in ("darwin", "win32") or {"DISPLAY", "WAYLAND_DISPLAY"} & os.environ.keys()
    ):
        webbrowser.open(page)


def _number_of(uri: str, name: str) -> str | None:
    """The experiment's number on a server; None where it has none yet, or the server does not say."""
    try:
        found = client_of(uri).get_experiment_by_name(name)
    except Exception:  # MLflow raises exceptions of many kinds; its page can be shown all the same
        return None
    return None if found is None else str(found.experiment_id)


def _comes_up(server: "subprocess.Popen[bytes]", port: int) -> bool:
    """Waits until the server answers; False if it has ended before."""
    start = time.monotonic()
    while server.poll() is None and time.monotonic() - start < _PATIENCE:
        try:
            connection = HTTPConnection("127.0.0.1", port, timeout=5)
            connection.request("GET", "/health")
            if connection.getresponse().status == 200:
                return True
        except (OSError, HTTPException):
            time.sleep(_POLLED)
    return server.poll() is None


def _is_taken(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=1).close()
    except OSError:
        return False
    return True


def _end(server: "subprocess.Popen[bytes]") -> None:
    """Ends the server, which ends its own processes."""
    server.terminate()
    try:
        server.wait(_ENDING)
    except subprocess.TimeoutExpired:
        server.kill()
        server.wait()
