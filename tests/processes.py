"""Processes that run a module of the tests and print JSON."""

import json
import os
import socket
import subprocess
import sys


def free_address():
    """Of this machine, with a port that nobody listens at."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{free.getsockname()[1]}"


def started(module, *arguments, **environment):
    """`python -m module` with arguments, in this environment and some more."""
    command = [sys.executable, "-m", module, *map(str, arguments)]
    return subprocess.Popen(command, env=os.environ | environment, stdout=subprocess.PIPE, text=True)


def printed(process):
    """What its last line says, once it has ended well."""
    output, _ = process.communicate(timeout=900)
    assert process.returncode == 0
    return json.loads(output.splitlines()[-1])
