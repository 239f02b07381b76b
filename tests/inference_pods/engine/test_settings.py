from pathlib import Path

import pytest

from inference_pods.engine.settings import parse_settings
from inference_pods.kernels.cpu import VARIANTS, Cpu

SOURCE = ("--model-source", "file:///m.gguf")


def test_levels_depths_order_and_digest_are_read():
    given = ("--levels", "int8,int4", "--depths", "30,28", "--skip-order", "17,14", "--model-sha256", "AB" * 32)
    settings = parse_settings([*SOURCE, *given])
    assert (settings.levels, settings.depths, settings.model_sha256) == (("int8", "int4"), (30, 28), "ab" * 32)
    assert settings.skip_order == (17, 14)
    settings = parse_settings(SOURCE)
    assert (settings.levels, settings.depths, settings.skip_order, settings.model_sha256) == ((), (), (), None)


@pytest.mark.parametrize(
    ("flag", "value", "words"),
    [
        ("--levels", "int8,int3", "int8,int4"),
        ("--depths", "30,few", "30,28"),
        ("--skip-order", "17;14", "17,14"),
        ("--model-sha256", "abc", "64 hexadecimal"),
        ("--max-waiting", "-1", "below the minimum"),
        ("--write-timeout-seconds", "0", "below the minimum"),
        ("--prefix-cache", "yes", "neither on nor off"),
        ("--tpot-milliseconds", "-1", "below the minimum"),
        ("--draft-tokens", "0", "below the minimum"),
        ("--kv-cache-tokens", "16", "--max-total-tokens"),
        ("--max-step-tokens", "4", "--max-batch-size"),
        ("--threads", "4097", "above the maximum of 4096"),
        ("--port", "65536", "above the maximum of 65535"),
        ("--drain-seconds", "nan", "nan is no number of seconds"),
        ("--drain-seconds", "inf", "inf is no number of seconds"),
        ("--drain-seconds", "-1", "-1 is no number of seconds"),
        ("--drain-seconds", "soon", "soon is no number of seconds"),
        ("--emulate-load-seconds", "nan", "nan is no number of seconds"),
    ],
)
def test_a_wrong_value_is_refused_by_its_flag(capsys, flag, value, words):
    with pytest.raises(SystemExit) as caught:
        parse_settings([*SOURCE, flag, value])
    assert caught.value.code == 2
    said = capsys.readouterr().err
    assert flag in said
    assert words in said


@pytest.mark.parametrize("variant", ["scalar", "AVX2"])
def test_kernels_that_there_are_not_are_refused_with_variable_value_and_choices(capsys, monkeypatch, variant):
    monkeypatch.setenv("ADAPTIVE_KERNEL_VARIANT", variant)
    with pytest.raises(SystemExit) as caught:
        parse_settings(SOURCE)
    assert caught.value.code == 2
    assert f"ADAPTIVE_KERNEL_VARIANT={variant}: no such kernels; choose one of avx512, avx2, generic" in (
        capsys.readouterr().err
    )


@pytest.mark.parametrize("variant", ["avx512", "avx2", "generic", ""])
def test_kernels_that_there_are_and_none_in_particular_can_be_asked_for(monkeypatch, variant):
    monkeypatch.setattr("inference_pods.kernels.library.detect_cpu", lambda: Cpu("New CPU", VARIANTS["avx512"]))
    monkeypatch.setenv("ADAPTIVE_KERNEL_VARIANT", variant)
    assert parse_settings(SOURCE).port == 8000


def test_kernels_that_this_cpu_lacks_are_refused_instead_of_dying_of_their_instructions(capsys, monkeypatch):
    monkeypatch.setattr("inference_pods.kernels.library.detect_cpu", lambda: Cpu("Old CPU", VARIANTS["avx2"]))
    monkeypatch.setenv("ADAPTIVE_KERNEL_VARIANT", "avx512")
    with pytest.raises(SystemExit) as caught:
        parse_settings(SOURCE)
    assert caught.value.code == 2
    words = "ADAPTIVE_KERNEL_VARIANT=avx512: this CPU (Old CPU [avx2 fma f16c]) lacks them; choose one of avx2, generic"
    assert words in capsys.readouterr().err


def test_the_largest_values_are_taken():
    settings = parse_settings([*SOURCE, "--threads", "4096", "--port", "65535", "--drain-seconds", "0.5"])
    assert (settings.threads, settings.port, settings.drain_seconds) == (4096, 65535, 0.5)


def test_the_schedulers_options_have_defaults_and_are_read():
    settings = parse_settings(SOURCE)
    assert (settings.prefix_cache, settings.tpot_milliseconds, settings.draft_level) == (True, 0, None)
    given = ("--prefix-cache", "off", "--tpot-milliseconds", "60", "--draft-level", "int4", "--draft-tokens", "2")
    settings = parse_settings([*SOURCE, *given])
    assert (settings.prefix_cache, settings.tpot_milliseconds) == (False, 60)
    assert (settings.draft_level, settings.draft_tokens) == ("int4", 2)


def test_the_time_for_a_slow_reader_is_as_documented():
    documented = (Path(__file__).parents[3] / "docs" / "architecture.md").read_text()
    seconds = parse_settings(SOURCE).write_timeout_seconds
    assert f"event of its stream unread for {seconds} s" in documented
    assert parse_settings([*SOURCE, "--write-timeout-seconds", "7"]).write_timeout_seconds == 7


def test_a_coarser_group_needs_int4(capsys):
    arguments = ["--model-source", "file:///m.gguf", "--group-size", "128", "--precision"]
    assert parse_settings([*arguments, "int4"]).group_size == 128
    with pytest.raises(SystemExit):
        parse_settings([*arguments, "int8"])
    assert "--group-size 128 needs --precision int4" in capsys.readouterr().err
