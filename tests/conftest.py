"""Fixtures for every test: single-threaded libraries, a home of its own, and one local Ray a session."""

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

# Before any library reads them: two cores are often shared by several test workers.
for _name in ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"):
    os.environ.setdefault(_name, "1")
os.environ.update(
    RAY_AUTH_MODE="disabled",  # each Ray of the tests is local; the job-submission test sets a token of its own
    RAY_USAGE_STATS_ENABLED="0",
    RAY_raylet_start_wait_time_s="180",  # the machine may be busy
    RAY_DATA_DISABLE_PROGRESS_BARS="1",
    RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0",
    HF_HUB_OFFLINE="1",
    HF_DATASETS_OFFLINE="1",
)


@pytest.fixture(scope="session", autouse=True)
def _own_home(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A home of the tests' own: `ray.init` leaves a token in it, `datasets` its cache."""
    before = os.environ.get("HOME")
    os.environ["HOME"] = str(tmp_path_factory.mktemp("home"))
    yield
    if before is not None:
        os.environ["HOME"] = before


@pytest.fixture(scope="session")
def ray_local() -> Iterator[None]:
    """One Ray on this machine with two logical CPUs, in a folder of its own (its socket paths must stay short)."""
    import ray

    folder = Path(tempfile.mkdtemp(prefix="pan", dir="/tmp"))
    for left in (2, 1, 0):
        try:
            ray.init(
                address="local",
                num_cpus=2,
                include_dashboard=False,
                object_store_memory=512 << 20,
                log_to_driver=False,
                _temp_dir=str(folder),
                runtime_env={"env_vars": {"PYTHONPATH": str(Path(__file__).parents[1])}},
            )
            break
        except Exception as error:  # a busy machine: Ray gives its agent 15 s, and names no type of its own for that
            ray.shutdown()
            if not left or "timed out during startup" not in str(error):
                raise
    yield
    ray.shutdown()
    shutil.rmtree(folder, ignore_errors=True)
