"""Runs on a Ray cluster on this machine: their speed, and their bytes while workers and nodes are killed.

    python -m benchmarks.cluster --data FOLDER --samples 50000 --trial speed nodes workers node

`speed`: two single-core workers beside one process of one thread. `nodes`: two nodes of one processor each
beside a head without any. `workers`: a worker is killed every few seconds. `node`: one node is killed as a
whole, and another one joins later. Every result is compared with that of one process of one thread.
"""

import hashlib
import os
import random
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import numpy as np
import torch

import lsi
from benchmarks.common import cifar_features, parser, write
from lsi.execution.ray_cluster import room_for

STORE = 600 << 20  # bytes of each node, three of them
TRIALS = ("speed", "nodes", "workers", "node")


def digest(scores):
    """Return the SHA-256 of every number of the table and of the audit."""
    out, table = hashlib.sha256(), scores.to_frame()
    for name in table:
        values = table[name].to_numpy()
        out.update(name.encode())
        out.update(values.tobytes() if values.dtype != object else "\0".join(map(str, values)).encode())
    out.update(np.array(scores.audit.exact if scores.audit else []).tobytes())
    return out.hexdigest()


class Node:
    """One `ray start` with its own processes."""

    def __init__(self, *options):
        ray = Path(sys.executable).with_name("ray")
        command = [
            ray,
            "start",
            "--block",
            "--disable-usage-stats",
            f"--object-store-memory={STORE}",
            *options,
        ]
        environment = {**os.environ, "OMP_NUM_THREADS": "1"}
        self.process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )

    def raylets(self):
        return [pid for pid in descendants(self.process.pid) if "raylet/raylet" in command_line(pid)]

    def workers(self):
        """Return workers that are doing a block."""
        found = [child for raylet in self.raylets() for child in children().get(raylet, [])]
        return [pid for pid in found if command_line(pid).startswith("ray::lsi")]

    def kill(self):
        for pid in self.raylets():
            os.kill(pid, signal.SIGKILL)

    def stop(self):
        self.process.send_signal(signal.SIGTERM)
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()


def children():
    """Return the children of every process."""
    out = {}
    for entry in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = entry.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        out.setdefault(int(fields[1]), []).append(int(entry.parent.name))
    return out


def descendants(pid):
    below = children()
    found, todo = [], [pid]
    while todo:
        found.append(todo.pop())
        todo += below.get(found[-1], [])
    return found


def command_line(pid):
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace")
    except OSError:
        return ""


class TwoNodes:
    """A head without processors, and two nodes with one each."""

    def __enter__(self):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            port = free.getsockname()[1]
        self.address, self.folder = f"127.0.0.1:{port}", tempfile.mkdtemp(prefix="r", dir="/tmp")
        self.nodes = [
            Node(
                "--head",
                "--node-ip-address=127.0.0.1",
                f"--port={port}",
                "--num-cpus=0",
                "--include-dashboard=false",
                f"--temp-dir={self.folder}",
            )
        ]
        wait_for(port)
        try:
            for count in (1, 2):
                self.join()
                wait_for_workers(self.address, count)
        except BaseException:
            self.__exit__()
            raise
        return self

    def join(self):
        self.nodes.append(Node(f"--address={self.address}", "--node-ip-address=127.0.0.1", "--num-cpus=1"))

    def __exit__(self, *_):
        for node in reversed(self.nodes):
            node.stop()
        shutil.rmtree(self.folder, ignore_errors=True)


def wait_for(port):
    for _ in range(100):
        try:
            socket.create_connection(("127.0.0.1", port), timeout=1).close()
            return
        except OSError:
            time.sleep(0.2)
    raise SystemExit("the head did not start")


def wait_for_workers(address, count):
    for _ in range(40):
        try:
            if room_for(address) >= count:
                return
            seen = "too few workers"
        except lsi.InputError as error:  # no node has joined yet
            seen = str(error)
        time.sleep(0.5)
    raise SystemExit(f"the nodes did not join: {seen}")


class Trouble(threading.Thread):
    """Kills workers every few seconds, or one node once."""

    def __init__(self, cluster, trial, every):
        super().__init__(daemon=True)
        self.cluster, self.trial, self.every = cluster, trial, every
        self.done, self.killed = threading.Event(), []

    def run(self):
        (self.kill_workers if self.trial == "workers" else self.kill_node)()

    def kill_workers(self):
        draw = random.Random(0)
        while not self.done.wait(self.every):
            workers = [pid for node in self.cluster.nodes for pid in node.workers()]
            if workers:
                self.killed.append(draw.choice(workers))
                os.kill(self.killed[-1], signal.SIGKILL)

    def kill_node(self):
        while not self.done.wait(self.every):
            if not self.killed and self.cluster.nodes[1].workers():
                self.killed.append("node")
                self.cluster.nodes[1].kill()
            elif len(self.killed) == 1:
                self.cluster.join()
                return


def scored(X, y, **settings):
    began = time.perf_counter()
    scores = lsi.score(X, y, **settings)
    return digest(scores), time.perf_counter() - began, scores.manifest["timings"]


def trial(name, X, y, every, settings):
    """Return digest, seconds, seconds by stage and the number of kills of one run on a cluster."""
    if name == "speed":
        return *scored(X, y, cluster="local", **settings), 0
    with TwoNodes() as cluster:
        trouble = Trouble(cluster, name, every)
        if name != "nodes":
            trouble.start()
        try:
            return *scored(X, y, cluster=cluster.address, **settings), len(trouble.killed)
        finally:
            trouble.done.set()


def main():
    options = parser(__doc__.splitlines()[0])
    options.add_argument("--samples", type=int, default=4000)
    options.add_argument("--features", type=int, default=512)
    options.add_argument("--trial", nargs="+", choices=TRIALS, default=TRIALS)
    options.add_argument("--every", type=float, default=5.0, help="seconds between kills")
    options.add_argument("--no-label-noise", action="store_true", help="leave the label-noise estimate out")
    given = options.parse_args()
    # Only this benchmark may use the clusters that it starts.
    os.environ |= {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}
    torch.set_num_threads(1)
    X, y, source = cifar_features(given.data, given.samples)
    X = np.ascontiguousarray(X[:, : given.features])
    settings = {"label_noise": False} if given.no_label_noise else {}
    expected, alone, stages = scored(X, y, **settings)
    print(f"one process: {alone:.1f} s", flush=True)
    rows = [{"run": "one process", "seconds": alone, "times": 1.0, "same bytes": "", **stages}]
    for name in given.trial:
        found, seconds, stages, kills = trial(name, X, y, given.every, settings)
        same = "yes" if found == expected else "NO"
        print(f"{name}: {seconds:.1f} s, same bytes: {same}", flush=True)
        rows.append(
            {
                "run": name,
                "seconds": seconds,
                "times": alone / seconds,
                "kills": kills,
                "same bytes": same,
                **stages,
            }
        )
    columns = ["run", "seconds", "times", "kills", "same bytes", "fit", "factor", "leave-one-out", "audit"]
    facts = {"data": source, "samples": len(X), "processors": os.cpu_count(), "sha256": expected}
    write("Two single-core workers on a Ray cluster", rows, columns, facts, given.output)
    return 0 if all(row["same bytes"] != "NO" for row in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
