"""JSON and YAML from anywhere: plain values, or a sentence."""

from __future__ import annotations

import json
import math
import os
from pathlib import Path

import pytest

from scene.documents import is_number, is_whole, read_json, read_object, read_yaml, shown
from scene.errors import CheckpointError, InputError

JSON_FAULTS = {
    "empty": (b"", "cannot be read as JSON"),
    "half": (b'{"a": [1, 2', "cannot be read as JSON"),
    "no text": (b"\xff\xfe\x00{", "cannot be read as JSON"),
    "beyond the stack": (b"[" * 100_000, "nested too deeply"),
    "deep": (b"[" * 200 + b"]" * 200, "nested too deeply"),
    "a list": (b"[1]", "it holds a list, not an object"),
    "a number": (b"7", "it holds a number, not an object"),
    "nothing": (b"null", "it holds nothing, not an object"),
}


@pytest.mark.parametrize(("content", "message"), JSON_FAULTS.values(), ids=JSON_FAULTS)
def test_json_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(InputError, match=rf"a\.json: .*{message}"):
        read_object(tmp_path / "a.json")
    with pytest.raises(CheckpointError, match=message):
        read_object(tmp_path / "a.json", CheckpointError)


def test_numbers_of_thousands_of_digits_are_infinite(tmp_path: Path) -> None:
    (tmp_path / "a.json").write_text(f'{{"a": -{"9" * 5000}, "b": {"1" * 64}, "c": {"1" * 65}}}')
    content = read_object(tmp_path / "a.json")
    assert content == {"a": -math.inf, "b": int("1" * 64), "c": pytest.approx(1.1111e64, rel=1e-3)}
    assert isinstance(content["c"], float)
    with pytest.raises(InputError, match="beyond all measure"):
        read_json(tmp_path / "a.json", finite=True)


@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity"])
def test_words_that_json_does_not_have(tmp_path: Path, word: str) -> None:
    (tmp_path / "a.json").write_text(f'{{"a": {word}}}')
    assert not math.isfinite(read_json(tmp_path / "a.json")["a"])
    with pytest.raises(InputError, match=f"{word} is not JSON"):
        read_json(tmp_path / "a.json", finite=True)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no\.json: cannot be read \(No such file"):
        read_json(tmp_path / "no.json")
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory"):
        read_json(tmp_path)
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / "a\0b.json")
    with pytest.raises(InputError, match="cannot be read"):
        read_json(tmp_path / ("n" * 300))


@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="this system has no pipes")
def test_a_pipe_is_not_waited_for(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "a.json")
    with pytest.raises(InputError, match=r"a\.json: cannot be read \(it is no plain file\)"):
        read_json(tmp_path / "a.json")


YAML_FAULTS = {
    "a tag": "a: !!python/object/apply:os.system ['touch ran']",
    "a date of no calendar": "a: 2024-99-99",
    "an unhashable key": "{[1]: 2}",
    "a number of 5000 digits": "a: " + "9" * 5000,
    "deep": "[" * 3000,
    "rather deep": "[" * 100 + "]" * 100,
    "half": "a: [1, 2",
    "within itself": "a: &x [*x]",
    "aliases that expand": "a: &a [1, 2, 3, 4, 5, 6, 7, 8, 9]\n"
    + "\n".join(f"{n}: &{n} [{', '.join([f'*{m}'] * 9)}]" for m, n in zip("abcdefgh", "bcdefghi", strict=True)),
    "large": "# " + "x" * 300_000,
    "merged with a number": "<<: 7",
}


@pytest.mark.parametrize("text", YAML_FAULTS.values(), ids=YAML_FAULTS)
def test_yaml_that_is_none(tmp_path: Path, text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a.yaml").write_text(text)
    with pytest.raises(InputError, match=r"a\.yaml: (cannot be read as YAML|is larger than)") as caught:
        read_yaml(tmp_path / "a.yaml")
    assert len(str(caught.value)) < 800
    assert not (tmp_path / "ran").exists()


def test_yaml_with_aliases_of_reason(tmp_path: Path) -> None:
    (tmp_path / "a.yaml").write_text("a: &x [1, 2]\nb: *x\n")
    assert read_yaml(tmp_path / "a.yaml") == {"a": [1, 2], "b": [1, 2]}


def test_values_are_shown_in_short() -> None:
    assert shown(7) == "7"
    assert shown("a" * 100) == "'" + "a" * 39 + "..."
    assert shown(10**5000) == "a number of about 5001 digits"
    assert shown([10**5000]) == "a list"
    assert shown(list(range(9))) == "a list of 9"


@pytest.mark.parametrize("value", [True, "1", None, [1], math.nan, math.inf, 10**400, 2.5])
def test_what_is_no_number_within_bounds(value: object) -> None:
    assert not is_number(value, 0, 2)
    assert not is_whole(value, 0, 2)


def test_numbers_within_bounds() -> None:
    assert is_number(2, 0, 2)
    assert is_number(0.5, 0, 2)
    assert is_whole(2, 0, 2)
    assert not is_whole(2.0, 0, 2)
    assert json.loads(json.dumps(10**64)) == 10**64
