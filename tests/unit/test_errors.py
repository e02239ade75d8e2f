"""Errors cross process borders whole: their kind and sentence survive pickling."""

import multiprocessing
import pickle
from typing import get_args

import pytest

from emer_ray import errors


@pytest.mark.parametrize("kind", errors.FAILURE_KINDS)
def test_a_clip_error_survives_pickling(kind):
    back = pickle.loads(pickle.dumps(errors.ClipError(kind, "clip a: 片段 is wrong")))
    assert (type(back), back.kind, str(back)) == (errors.ClipError, kind, "clip a: 片段 is wrong")


@pytest.mark.parametrize("kind", get_args(errors.StorageKind))
def test_a_storage_error_survives_pickling(kind):
    back = pickle.loads(pickle.dumps(errors.StorageError(kind, "read x: gone")))
    assert (type(back), back.kind, str(back)) == (errors.StorageError, kind, "read x: gone")


def _raise(kind: errors.FailureKind) -> None:
    raise errors.ClipError(kind, "clip a: no sound")


def test_a_clip_error_comes_back_from_another_process():
    context = multiprocessing.get_context("spawn")
    with context.Pool(1) as pool, pytest.raises(errors.ClipError, match="no sound") as caught:
        pool.apply(_raise, ("corrupt",))
    assert caught.value.kind == "corrupt"


@pytest.mark.parametrize(
    "kind", [errors.ConfigError, errors.ManifestError, errors.RunDirError, errors.ModelError]
)
def test_a_users_mistake_exits_with_2(kind):
    assert issubclass(kind, errors.EmerError)
    assert kind("x").exit_code == 2


def test_only_a_run_over_its_budget_exits_with_1():
    assert errors.BudgetError("x").exit_code == 1


def test_a_storage_kind_is_a_failure_kind():
    assert set(get_args(errors.StorageKind)) <= set(errors.FAILURE_KINDS)
