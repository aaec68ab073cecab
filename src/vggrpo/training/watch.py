"""Watches a training by its held-out evaluations: raises alarms, and keeps the best policy so far."""

import logging
import math
import shutil
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from typing import Any

from vggrpo.backbones import VideoBackbone
from vggrpo.config import AlarmError, TrainSettings
from vggrpo.evaluation import (
    Alarm,
    Evaluated,
    EvaluationRecords,
    Interval,
    assess,
    bootstrap_mean,
    weighted_reward,
)
from vggrpo.evaluation.alarms import MEANINGS
from vggrpo.io import RunFolder, atomic_folder, read_json, write_json

ALARMS_FILE = "alarms.json"
BEST_FOLDER = "best"
SCORE_FILE = "score.json"
PREFIX = "alarm/"
"""Of the alarms in the run's metrics."""

logger = logging.getLogger(__name__)


class Watch:
    """Judges a run after each of its held-out evaluations.

    Args:
        settings: of the run.
        run: its folder.
        policy: what the evaluations are of; saved where it is the best so far.
        weights: of the rewards that it is trained on, by name.
    """

    def __init__(
        self, settings: TrainSettings, run: RunFolder, policy: VideoBackbone, weights: Mapping[str, float]
    ) -> None:
        self.settings, self.run, self.policy, self.weights = settings, run, policy, weights

    def observe(self, history: Sequence[Evaluated]) -> tuple[Alarm, ...]:
        """Raises the alarms that the newest evaluation gives reason to; keeps its policy if it is the best.

        The alarms go to `metrics.jsonl` (0 or 1 each), to `alarms.json` and, where one was not raised by the
        evaluation before, to the log. What a run that was interrupted did already is not done again.

        Args:
            history: all evaluations of the run, the base model's first.
        """
        newest = history[-1]
        if newest.iteration == 0:
            self._warn_of_blind_spots(newest.records)
        assessment = assess(history, self._kl(), self.weights, self.settings.alarms)
        self._record(history, assessment.alarms)
        # A fault need not last for a policy not to be the best.
        if newest.iteration > 0 and not assessment.faults:
            self._keep_if_best(newest)
        return assessment.alarms

    def forget_after(self, iteration: int) -> None:
        """Deletes the alarms and the best policy of later iterations, which will be another policy's."""
        file, best = self.run.path / ALARMS_FILE, self._best()
        if file.exists():
            write_json(file, [entry for entry in read_json(file) if entry["iteration"] <= iteration])
        if best is not None and best["iteration"] > iteration:
            shutil.rmtree(self.run.path / BEST_FOLDER)

    def stopped(self, alarms: Sequence[Alarm]) -> AlarmError:
        """The error that ends the run after its last checkpoint."""
        iteration, run = alarms[0].iteration, self.run.path
        best = self._best()
        kept = (
            f"the best policy by the independent score is that of iteration {best['iteration']}, in "
            f"{run / BEST_FOLDER}"
            if best
            else "no evaluation so far was without fault, so none is kept as the best"
        )
        sentences = "".join(f"\n  {alarm.sentence}" for alarm in alarms)
        return AlarmError(
            f"stopped by an alarm, as stop_on_alarm asks:{sentences}\n"
            f"The policy is in the checkpoint of iteration {iteration}; {kept}.\n"
            f"To go on all the same: --resume --no-stop-on-alarm --output {run}"
        )

    def _kl(self) -> list[tuple[int, float]]:
        records = self.run.read_metrics()
        values = [(record["step"], record.get("policy/kl")) for record in records]
        return [(step, value) for step, value in values if value is not None]

    def _record(self, history: Sequence[Evaluated], alarms: Sequence[Alarm]) -> None:
        iteration = history[-1].iteration
        raised = {alarm.name for alarm in alarms}
        logged = [record for record in self.run.read_metrics() if record["step"] == iteration]
        if not any(name.startswith(PREFIX) for record in logged for name in record):
            self.run.log(iteration, {PREFIX + name: int(name in raised) for name in MEANINGS})

        file = self.run.path / ALARMS_FILE
        stored: list[dict[str, Any]] = read_json(file) if file.exists() else []
        earlier = [entry for entry in stored if entry["iteration"] < iteration]
        write_json(file, earlier + [asdict(alarm) for alarm in alarms])

        told = {entry["name"] for entry in stored if entry["iteration"] == iteration}
        if len(history) > 1:
            told |= {entry["name"] for entry in earlier if entry["iteration"] == history[-2].iteration}
        for alarm in alarms:
            if alarm.name not in told:
                logger.warning("alarm: %s", alarm.sentence)

    def _keep_if_best(self, newest: Evaluated) -> None:
        score = independent_score(newest.records, self.weights)
        best = self._best()
        if math.isnan(score.mean) or (best is not None and best["score"] >= score.mean):
            return
        with atomic_folder(self.run.path / BEST_FOLDER, replace=True) as folder:
            self.policy.save_lora(folder)
            write_json(
                folder / SCORE_FILE,
                {
                    "iteration": newest.iteration,
                    "score": score.mean,
                    "low": _or_none(score.low),
                    "high": _or_none(score.high),
                    "samples": score.count,
                    "missing": score.missing,
                },
            )

    def _best(self) -> dict[str, Any] | None:
        file = self.run.path / BEST_FOLDER / SCORE_FILE
        return read_json(file) if file.exists() else None

    def _warn_of_blind_spots(self, base: EvaluationRecords) -> None:
        prompts, least = len(set(base.columns["prompt_id"])), self.settings.alarms.least_prompts
        if prompts < least:
            logger.warning(
                "there are %d held-out prompts, but alarms need %d (alarms.least_prompts) to tell a fault "
                "from noise: only kl_runaway can be raised",
                prompts,
                least,
            )
        if not self.settings.kl_coef:
            logger.warning("kl_coef is 0, so no KL is computed and kl_runaway cannot be raised")


def independent_score(records: EvaluationRecords, weights: Mapping[str, float]) -> Interval:
    """The weighted mean of the teacher's rewards on decoded videos, which the policy is not trained on."""
    values = weighted_reward(records, "teacher", weights)
    return bootstrap_mean(values, records.columns["prompt_id"])


def _or_none(value: float) -> float | None:
    return None if math.isnan(value) else value
