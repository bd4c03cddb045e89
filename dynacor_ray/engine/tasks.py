"""Which task a training job asks for."""

from __future__ import annotations

import torch

from dynacor_ray.engine.dynamics_task import DynamicsTask, SignalsTask
from dynacor_ray.engine.job import Job
from dynacor_ray.engine.panel_task import PanelTask
from dynacor_ray.engine.task import Task


def make_task(job: Job, device: torch.device) -> Task:
    """The task that a job asks for."""
    if job.config.panel:
        return PanelTask(job)
    return SignalsTask(job, device) if job.config.signals else DynamicsTask(job, device)
