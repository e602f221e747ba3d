"""The driver: reads what `slm-fast search` asks for on stdin, answers on stdout, a JSON object a line.

It ends when stdin ends, and takes its workers along.
"""

import argparse
import json
import os
import queue
import socket
import sys
import tempfile
import threading
from pathlib import Path

import ray

from slm_fast_ray.job import Mailbox, run_job

# seconds between two looks at the cluster
LOOK_EVERY = 0.1
# seconds that a cluster may take to answer
PATIENCE = 5
# times that a job is lost without having saved anything new in between, before it is given up
LOSSES = 5


def say(answer):
    """Prints an answer."""
    print(json.dumps(answer), flush=True)


def write_whole(path, content):
    """Writes a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".writing-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())
    os.chmod(temporary, 0o644)
    os.replace(temporary, path)


class Job:
    """A job under way: what was asked, and what came back so far."""

    def __init__(self, ask):
        self.number = ask["job"]
        self.ask = ask
        self.folder = Path(ask["folder"])
        self.attempt = 0
        self.losses = 0


class Driver:
    """Jobs on a cluster."""

    def __init__(self, program):
        self.program = ray.put(Path(program).read_bytes())
        self.mailbox = ray.remote(num_cpus=0)(Mailbox).remote()
        # a lost worker's job is begun again here, from its checkpoint, not by Ray from the start
        self.remote = ray.remote(max_retries=0)(self.entry())
        self.jobs = {}

    @staticmethod
    def entry():
        """The function that a worker runs, under a name that tells it in process lists."""

        def slm_fast_job(*arguments):
            return run_job(ray, *arguments)

        return slm_fast_job

    def submit(self, job):
        """Has a job run on whatever machine has room, from its last checkpoint."""
        ask = job.ask
        path = job.folder / ask["checkpoint"]
        saved = {ask["checkpoint"]: path.read_bytes()} if path.exists() else {}
        options = {"num_cpus": ask["cpu"], "num_gpus": ask["gpu"], "name": f"slm-fast job {job.number}"}
        arguments = (self.program, job.number, job.attempt, ask["request"], saved, ask["checkpoint"], self.mailbox)
        self.jobs[self.remote.options(**options).remote(*arguments)] = job

    def read_mail(self):
        """Hands lines on, and puts the files that came with them into the experiment's folder."""
        current = {job.number: job for job in self.jobs.values()}
        for number, attempt, line, files in ray.get(self.mailbox.take.remote()):
            job = current.get(number)
            if job is None or job.attempt != attempt:
                continue
            for name, content in files.items():
                write_whole(job.folder / name, content)
            if files:
                job.losses = 0
            say({"line": {"job": number, "line": line}})

    def finish(self, job, result):
        """Puts a job's files where they belong; those that say that a trial has ended last of all."""
        if "failed" in result:
            say({"failed": {"job": job.number, "reason": result["failed"]}})
            return
        is_last = lambda name: "/" not in name and name.endswith("_trial_metrics_scalar.json")
        for name in sorted(result["files"], key=is_last):
            write_whole(job.folder / name, result["files"][name])
        if job.ask["checkpoint"] not in result["files"]:
            (job.folder / job.ask["checkpoint"]).unlink(missing_ok=True)
        say({"line": {"job": job.number, "line": result["line"]}})

    def look(self):
        """Takes what has come, and begins again what was lost."""
        self.read_mail()
        done, _ = ray.wait(list(self.jobs), num_returns=len(self.jobs), timeout=LOOK_EVERY)
        if done:
            # lines come before the end
            self.read_mail()
        for reference in done:
            job = self.jobs.pop(reference)
            try:
                self.finish(job, ray.get(reference))
            except ray.exceptions.RayTaskError as error:
                say({"failed": {"job": job.number, "reason": str(error).strip().splitlines()[-1]}})
            except ray.exceptions.RayError as error:
                reason = type(error).__name__
                job.attempt += 1
                job.losses += 1
                if job.losses >= LOSSES:
                    say({"failed": {"job": job.number, "reason": f"lost {LOSSES} times running: {reason}"}})
                else:
                    say({"lost": {"job": job.number, "reason": reason}})
                    self.submit(job)


def listen(asks):
    """Follows stdin beside the work."""
    for text in sys.stdin:
        asks.put(json.loads(text))
    asks.put(None)


def reach(address):
    """Fails within seconds where nobody listens at `HOST:PORT`; Ray itself would go on trying for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if port.isdigit():
        socket.create_connection((host.strip("[]") or "127.0.0.1", int(port)), timeout=PATIENCE).close()


def main():
    """Connects, then serves until there is nobody to serve."""
    parser = argparse.ArgumentParser()
    for name in ("--address", "--program"):
        parser.add_argument(name, required=True)
    for name in ("--cpu", "--gpu"):
        parser.add_argument(name, required=True, type=float)
    arguments = parser.parse_args()
    try:
        address = None if arguments.address == "local" else arguments.address
        reach(arguments.address)
        ray.init(address=address, log_to_driver=False, include_dashboard=False, configure_logging=False)
    except (ConnectionError, OSError, ValueError, RuntimeError) as error:
        lines = str(error).strip().splitlines() or [type(error).__name__]
        say({"broken": {"reason": f"no Ray cluster can be reached: {lines[0]}"}})
        return
    resources = ray.cluster_resources()
    slots = resources.get("CPU", 0) / arguments.cpu if arguments.cpu > 0 else float("inf")
    if arguments.gpu > 0:
        slots = min(slots, resources.get("GPU", 0) / arguments.gpu)
    if slots < 1:
        have = f"{resources.get('CPU', 0):g} CPUs and {resources.get('GPU', 0):g} GPUs"
        say({"broken": {"reason": f"the cluster has {have}, less than one job takes (meta.search_resources)"}})
        return
    driver = Driver(arguments.program)
    say({"ready": {"slots": int(min(slots, 100_000))}})
    asks = queue.Queue()
    threading.Thread(target=listen, args=(asks,), daemon=True).start()
    while True:
        try:
            ask = asks.get(timeout=None if not driver.jobs else 0.001)
        except queue.Empty:
            driver.look()
            continue
        if ask is None:
            break
        if "run" in ask:
            driver.mailbox.stop.remote(False)
            driver.submit(Job(ask["run"]))
        elif "stop" in ask:
            driver.mailbox.stop.remote(True)
    ray.shutdown()


main()
