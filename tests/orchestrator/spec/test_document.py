"""YAML text with positions: numbers, refusals, places."""

import pytest

from orchestrator.errors import BadInput
from orchestrator.spec.document import MAX_BYTES, parse_document


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-4", 1e-4),
        ("5e6", 5e6),
        ("3", 3),
        ("1_000", 1000),
        (".5", 0.5),
        ("-2.5", -2.5),
        ("0x10", 16),
        ("true", True),
        ("null", None),
        ("~", None),
        ("no", "no"),
        ("on", "on"),
        ("1:30", "1:30"),
        ("'3'", "3"),
        ("2020-01-01", "2020-01-01"),
    ],
)
def test_scalars_follow_yaml_1_2(text, value):
    found = parse_document(f"x: {text}", "f.yaml").data["x"]
    assert found == value
    assert type(found) is type(value)


def test_every_key_and_value_has_its_place():
    document = parse_document("a: 1\nb:\n  - {c: 2}\n", "f.yaml")
    assert document.data == {"a": 1, "b": [{"c": 2}]}
    assert [(p.line, p.column) for p in (document.keys["b", 0, "c"], document.values["b", 0, "c"])] == [(3, 6), (3, 9)]


def test_a_complaint_points_at_the_nearest_place_that_exists():
    document = parse_document("a:\n  b: 1\n", "f.yaml")
    complaint = document.complaint(("a", "b", "not", "there"), "wrong")
    assert (complaint.line, complaint.column) == (2, 6)
    assert "  b: 1\n         ^" in str(complaint)


BOMB = "a: &a [x, x, x, x, x, x, x, x, x, x]\n" + "".join(
    f"{chr(98 + i)}: &{chr(98 + i)} [{', '.join(['*' + chr(97 + i)] * 10)}]\n" for i in range(8)
)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("a: 1\na: 2\n", "a second time; it is on line 1"),
        ("a: !!python/object:os.system x", "the tag"),
        ("a: !custom x", "the tag '!custom'"),
        ("\ta: 1", "Indent with spaces"),
        ("a: [1, 2", "not YAML"),
        ("a: .nan", "not a usable number"),
        ("a: -.inf", "not a usable number"),
        ("a: 1e999", "too large"),
        ("a: " + "9" * 50, "50 digits"),
        ("", "empty"),
        ("? [a, b]\n: 1", "a key must be a word"),
        (b"a: \xff\xfe", "not UTF-8"),
        ("a: " + "[" * 60 + "]" * 60, "nested deeper"),
        ("a: " + "[" * 5000, "nested deeper"),
        (BOMB, "once aliases are written out"),
        ("a: &a [*a]", "nested deeper"),
        ("a: 1\n---\nb: 2\n", "not YAML"),
        ("x: " + "y" * MAX_BYTES, "bytes"),
        ("a: *nowhere", "not YAML"),
        ("a: \x00", "not YAML"),
    ],
)
def test_refusals_are_one_message_with_the_file(text, says):
    with pytest.raises(BadInput) as caught:
        parse_document(text, "f.yaml")
    assert says in str(caught.value)
    assert all(complaint.file == "f.yaml" for complaint in caught.value.complaints)


def test_a_byte_order_mark_is_no_part_of_the_first_key():
    assert parse_document(b"\xef\xbb\xbfa: 1", "f.yaml").data == {"a": 1}
