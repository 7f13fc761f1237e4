"""Other processes of tests: how they are started, and what programs begin with where they fork."""

import os
import signal
import subprocess
import sys

CHILD_DOES = """
import os
import signal

def child_does(job):
    # A child that hangs is killed, which its exit status shows.
    child = os.fork()
    if child == 0:
        signal.alarm(60)
        try:
            job()
        except BaseException:
            import traceback
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status == 0, status
"""


def run_python(*arguments: object) -> str:
    """Run Python, which may start others; kill all if it does not end; give what it says."""
    process = subprocess.Popen(
        [sys.executable, *map(str, arguments)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        told, errors = process.communicate(timeout=200)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert process.returncode == 0, errors
    return told
