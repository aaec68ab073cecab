"""Tasks through worker processes: a bounded number in flight, and no clip can stop the others."""

from collections.abc import Generator, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from multiprocessing import get_all_start_methods, get_context
from multiprocessing.context import BaseContext

import cv2

from vggrpo.config.errors import RunError
from vggrpo.evaluation.videos.worker import Outcome, Task, Workload, measure_clip, run_in_worker, start_worker

TASKS_PER_WORKER = 2
"""In flight: one that runs and one that waits, so that no worker idles and few results are in memory."""
DIED = (
    "the process that measured it died: the video needs more memory than there is, or the decoder crashed; "
    "use fewer --workers, or make the file again"
)


def run_tasks(tasks: Iterable[Task], workload: Workload, workers: int) -> Iterator[Outcome]:
    """An outcome for every task, in the order in which they finish.

    With 0 workers everything runs here, one clip after the other. If a worker dies, the clips in flight are
    run again, each in a process of its own, and the one that kills it has failed.

    Raises:
        RunError: if worker processes cannot start.
    """
    if workers == 0:
        threads = cv2.getNumThreads()
        cv2.setNumThreads(1)
        try:
            for task in tasks:
                yield measure_clip(task, workload)
        finally:
            cv2.setNumThreads(threads)
        return
    remaining = iter(tasks)
    while lost := (yield from _run_pool(remaining, workload, workers)):
        for task in lost:
            if (yield from _run_pool(iter([task]), workload, 1)):
                yield Outcome(task.clip, reason=DIED)


def _run_pool(
    tasks: Iterator[Task], workload: Workload, workers: int
) -> Generator[Outcome, None, list[Task]]:
    """Runs until the tasks end or a worker dies; returns the tasks that were lost with it."""
    lost: list[Task] = []
    pool = ProcessPoolExecutor(workers, mp_context=_context(), initializer=start_worker, initargs=(workload,))
    try:
        try:
            pool.submit(int).result()
        except BrokenProcessPool as error:
            raise RunError(
                "worker processes cannot start; in a script of your own, call this below "
                '`if __name__ == "__main__":`, or use 0 workers'
            ) from error
        running: dict[Future[Outcome], Task] = {}

        def start(most: int) -> None:
            """Submits the next tasks, none once a worker has died."""
            for _ in range(most):
                if lost or (task := next(tasks, None)) is None:
                    return
                try:
                    running[pool.submit(run_in_worker, task)] = task
                except BrokenProcessPool:
                    lost.append(task)

        start(TASKS_PER_WORKER * workers)
        while running:
            for future in wait(running, return_when=FIRST_COMPLETED).done:
                task = running.pop(future)
                try:
                    outcome = future.result()
                except BrokenProcessPool:
                    lost.append(task)
                    continue
                start(1)
                yield outcome
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
    return lost


def _context() -> BaseContext:
    """Fresh processes that know nothing of this one's threads and models.

    Where the system can, they come from a server that has imported what they need once for all.
    """
    if "forkserver" not in get_all_start_methods():
        return get_context("spawn")
    context = get_context("forkserver")
    context.set_forkserver_preload([start_worker.__module__])
    return context
