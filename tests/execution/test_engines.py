"""Which executor a call names, and that a wrong call is told before anything is begun."""

import pytest
from click.testing import CliRunner

from senet_ablate.cli.main import main
from senet_ablate.errors import UserError
from senet_ablate.execution import driver
from senet_ablate.execution.driver import REMOTE


def set_up(executor, *options, jobs=None):
    return driver.set_up(executor, options, "cpu", jobs, devices=1, threads=1, without=(), say=print)


def test_a_call_on_this_machine_says_how_many_runs_are_done_at_once():
    engine = set_up("local", jobs=3)
    assert engine.where(2) == "2 at once"
    assert engine.where(9) == "3 at once"


def test_the_local_executor_takes_no_options():
    with pytest.raises(UserError, match="'partition=gpu': --executor local has none"):
        set_up("local", "partition=gpu")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--executor", "slrum"], ["slrum", "local", "slurm", "ray"]),
        (["--executor", "ray", "--executor-option", "adress=auto"], ["adress", "did you mean 'address'"]),
        (["--executor", "slurm", "--executor-option", "minutes=soon"], ["minutes", "soon", "integer"]),
        (["--executor", "slurm", "--executor-option", "gpus=1", "--device", "cpu"], ["gpus=1", "--device cuda"]),
        (["--executor-option", "gpus=1"], ["gpus=1", "--executor local"]),
    ],
)
def test_a_mistake_is_one_message_and_leaves_no_file(tmp_path, monkeypatch, arguments, words):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("senet_ablate.execution.local.warm_up", lambda: None)
    result = CliRunner().invoke(main, ["run", "ratio", *arguments])
    assert result.exit_code == 2
    told = " ".join(result.stderr.split())
    assert all(word in told for word in words), told
    assert not list(tmp_path.iterdir())


def test_executor_and_options_may_come_from_the_environment(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    given = {"SENET_ABLATE_EXECUTOR": "slurm", "SENET_ABLATE_EXECUTOR_OPTIONS": "partition=gpu gpus=two"}
    result = CliRunner().invoke(main, ["run", "ratio"], env=given)
    assert result.exit_code == 2
    assert 'gpus = "two"' in result.stderr


def test_help_names_every_option_of_every_engine():
    told = CliRunner().invoke(main, ["run", "--help"]).output
    assert REMOTE
    for model, _, _ in REMOTE.values():
        assert [name for name in model.model_fields if name not in told] == []
