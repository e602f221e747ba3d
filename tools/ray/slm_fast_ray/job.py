"""One job on a worker: the program runs in a folder of its own, its lines go to the mailbox, its files come back."""

import hashlib
import json
import os
import stat
import subprocess
import tempfile
from pathlib import Path

# of stderr, in a message
COMPLAINT = 2000


class Mailbox:
    """What workers tell, until the driver takes it. A Ray actor."""

    def __init__(self):
        self.letters = []
        self.stopping = False

    def post(self, job, attempt, line, files):
        """Takes a line and the files that came with it; true when the worker is to stop."""
        self.letters.append((job, attempt, line, files))
        return self.stopping

    def take(self):
        """All that came since the last time."""
        letters, self.letters = self.letters, []
        return letters

    def stop(self, stopping):
        """Has every worker save a checkpoint and end, or no longer."""
        self.stopping = stopping


def executable(program):
    """The program as a file of this machine, written once."""
    path = Path(tempfile.gettempdir()) / f"slm-fast-{hashlib.sha256(program).hexdigest()[:16]}"
    if not path.exists():
        handle, temporary = tempfile.mkstemp(dir=path.parent)
        with os.fdopen(handle, "wb") as file:
            file.write(program)
        os.chmod(temporary, stat.S_IRWXU)
        # whole or not at all: other workers of this machine do the same
        os.replace(temporary, path)
    return str(path)


def gather(folder, wanted):
    """The files below a folder whose names `wanted` accepts, by relative name."""
    found = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        # a file that is being written, or was a moment ago, has another name
        if path.is_file() and not path.name.startswith(".writing-") and wanted(name):
            try:
                found[name] = path.read_bytes()
            except FileNotFoundError:
                pass
    return found


def run_job(ray, program, job, attempt, request, saved, checkpoint_name, mailbox):
    """Runs a job to the end of its order: its last line and all its files, or what went wrong."""
    with tempfile.TemporaryDirectory(prefix="slm-fast-job-") as temporary:
        folder = Path(temporary)
        (folder / "job.json").write_text(json.dumps(request))
        for name, content in saved.items():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            (folder / name).write_bytes(content)
        complaints = folder / "stderr"
        with open(complaints, "wb") as stderr:
            # when this process dies its end of stdin closes, and the program ends too
            process = subprocess.Popen(
                [executable(program), "search-job", str(folder)],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stderr,
                text=True,
            )
        last, told, answer = None, False, None
        for text in process.stdout:
            last = json.loads(text)
            news = last.get("news")
            if news is None:
                continue
            files = {}
            if news["has_saved"]:
                files = gather(folder, lambda name: name == checkpoint_name or name.endswith("_session_df_train.csv"))
            # the answer to one line is looked at when the next comes: nobody waits
            if answer is not None and not told and ray.get(answer):
                process.stdin.write("stop\n")
                process.stdin.flush()
                told = True
            answer = mailbox.post.remote(job, attempt, last, files)
        code = process.wait()
        if code != 0 or last is None or "news" in last:
            complaint = complaints.read_text(errors="replace").strip()[-COMPLAINT:]
            return {"failed": complaint or f"the program ended with code {code}"}
        files = gather(folder, lambda name: name not in ("job.json", "stderr"))
        return {"line": last, "files": files}
