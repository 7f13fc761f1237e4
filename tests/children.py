"""Code that programs of tests begin with where they fork."""

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
