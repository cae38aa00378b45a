"""What comes from the browser: nothing of it reaches the disk, runs, or takes the server down."""

from __future__ import annotations

import io
import json
import re
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings as hypothesis_settings, strategies as st
from PIL import Image

from apps.explorer.server.security import (
    MAX_UPLOAD,
    UploadError,
    checked_image,
    checked_json,
    checked_name,
    checked_text,
    plain,
    safe_join,
)
from tests.apps.explorer.conftest import Open, scan_files, texts

HOSTILE = [
    "../../etc/passwd",
    "..%2f..%2fetc%2fpasswd",
    "%2e%2e/%2e%2e",
    "\\\\server\\share\\file",
    "/etc/passwd",
    "scenes/mixed4a:11\x00.png",
    "scenes/../../x:1",
    "file:///etc/passwd",
    "scenes/mixed4a:" + "9" * 40_000,
    "x" * 40_000,
    "scenes/<script>alert(1)</script>:1",
    "scenes/mixed4a:-1",
    "scenes/mixed4a:99999",
    "torchvision/resnet18/layer4:1",
    "hf:evil/repo/layers:1",
    "scenes/mixed4a:11@999,999",
    "${jndi:ldap://x}",
    "{{7*7}}",
]
SLOW = ("layer", "circuit", "image", "steering")
PAGES = ("unit", *(pytest.param(page, marks=pytest.mark.slow) for page in SLOW))


@pytest.mark.parametrize("page", PAGES)
def test_a_hostile_address_is_one_line_and_loses_nothing(opened: Open, made_store: Path, page: str) -> None:
    before = scan_files(made_store)
    for address in HOSTILE:
        at = opened(page, settle=False, unit=address)
        assert not at.exception, address[:60]
        assert len(at.error) == 1, address[:60]
        line = at.error[0].value
        assert "\n" not in line and len(line) < 900 and "Traceback" not in line, address[:60]
    assert scan_files(made_store) == before


@pytest.mark.parametrize(
    "params",
    [
        {"examples": "x" * 5_000},
        {"section": "../.."},
        {"image": "9" * 400, "section": "contributions"},
        {"position": "1,2,3", "section": "contributions"},
        {"tour": "../x", "step": "99999999999999999999"},
        {"incoming": "9" * 300},
        {"sort": "'; DROP TABLE labels; --"},
        {"pin": "../../x", "group": "a=b;c"},
        {"file": "../../../etc/passwd"},
        {"selected": "<img src=x onerror=alert(1)>", "edge": "a>b>c"},
        {"prune": "nan"},
        {"size": "1e9"},
        {"via": "x" * 90},
    ],
)
@pytest.mark.parametrize("page", PAGES)
def test_hostile_parts_of_an_address_never_end_in_an_exception(opened: Open, page: str, params: dict[str, str]) -> None:
    at = opened(page, settle=False, unit="scenes/mixed4a:11", **params)
    assert not at.exception
    assert all("Something went wrong" not in e.value for e in at.error), [e.value for e in at.error]


def test_only_models_that_were_opened_here_can_be_named(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a model was loaded by name from the browser")

    monkeypatch.setattr("zoo.weights.download.fetch", refuse, raising=False)
    at = opened("unit", unit="inceptionv1/mixed4a:1")
    assert "no model" in at.error[0].value and "scenes" in at.error[0].value


def test_a_script_in_a_label_is_text(opened: Open, store: Path, settings: Callable[..., None]) -> None:
    from apps.explorer.session.labels import Label, Labels

    bad = "<script>alert(1)</script>![x](http://example.org/x.png)"
    Labels(store).save(Label("scenes/mixed4a:11", "<b>eve</b>", bad, evidence="<img src=x onerror=alert(1)>"))
    settings(store)
    at = opened("unit", unit="scenes/mixed4a:11", section="labels")
    # nothing is given to an element as HTML but our own style sheet
    assert all("<script" not in block.proto.body for block in at.get("html"))
    text = "\n".join(m.value for m in at.markdown) + "\n".join(c.value for c in at.caption)
    assert not re.search(r"(?<!\\)<|(?<!\\)\]\(", text)
    assert "\\<script\\>" in text, "it is there, as text"


def test_no_element_is_given_html_that_runs() -> None:
    import apps.explorer

    root = Path(apps.explorer.__file__).parent
    for path in root.rglob("*.py"):
        text = path.read_text()
        assert "unsafe_allow_html" not in text and "unsafe_allow_javascript" not in text, path
    for path in root.rglob("*.js"):
        assert not any(word in path.read_text() for word in ("innerHTML", "outerHTML", "eval(", "document.write")), path


def test_text_for_markdown_stays_what_it_is() -> None:
    assert plain("a *b* [c](d) `e` $x$ :material/home: <i>") == (
        "a \\*b\\* \\[c\\]\\(d\\) \\`e\\` \\$x\\$ \\:material/home\\: \\<i\\>"
    )


def test_only_the_pixels_of_an_image_are_used() -> None:
    buffer = io.BytesIO()
    Image.new("RGBA", (20, 10), (255, 0, 0, 128)).save(buffer, format="PNG")
    image = checked_image(buffer.getvalue() + b"<script>trailing</script>")
    assert image.size == (20, 10) and image.mode == "RGB"


def _bomb(width: int, height: int) -> bytes:
    """A PNG that says it is large; a few bytes of file."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    head = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    return (
        b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    )


@pytest.mark.parametrize(
    "data",
    [
        pytest.param(_bomb(100_000, 100_000), id="bomb"),
        pytest.param(_bomb(20_000, 3_000), id="many pixels"),
        pytest.param(b"\x80\x04\x95" + b"x" * 100, id="pickle"),
        pytest.param(b"GIF89a" + b"x" * 100, id="another kind"),
        pytest.param(b"", id="nothing"),
        pytest.param(b"<svg onload='alert(1)'/>", id="svg"),
        pytest.param(b"\x89PNG\r\n\x1a\n" + b"\0" * 50, id="broken"),
        pytest.param(b"\0" * (MAX_UPLOAD + 1), id="too large"),
    ],
)
def test_a_file_that_is_no_image_is_refused(data: bytes) -> None:
    with pytest.raises(UploadError):
        checked_image(data)


@pytest.mark.parametrize("data", [b"{", b"\xff\xfe", b"[" * 100_000, b"x" * (MAX_UPLOAD + 1)])
def test_a_file_that_is_no_json_is_refused(data: bytes) -> None:
    with pytest.raises(UploadError):
        checked_json(data)


@pytest.mark.parametrize("name", ["..", ".", "a/b", "a\\b", "", "a" * 81, ".hidden", "a\0b", "a..b", "con\n", "é"])
def test_a_name_that_could_lead_elsewhere_is_none(tmp_path: Path, name: str) -> None:
    with pytest.raises(UploadError):
        checked_name(name)
    with pytest.raises(UploadError):
        safe_join(tmp_path, name)


def test_a_link_out_of_the_store_is_refused(tmp_path: Path) -> None:
    (tmp_path / "root").mkdir()
    (tmp_path / "secret").write_text("x")
    (tmp_path / "root" / "link").symlink_to(tmp_path / "secret")
    with pytest.raises(UploadError):
        safe_join(tmp_path / "root", "link")


@given(st.text(max_size=300))
@hypothesis_settings(max_examples=200, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_text_that_is_taken_can_be_written_and_shown(text: str) -> None:
    checked = checked_text(text)
    json.dumps(checked).encode("utf-8")
    checked.encode("utf-8")
    assert all(c in "\n\t" or c.isprintable() for c in checked)


def test_an_unexpected_error_shows_its_number_only(opened: Open, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret path /home/somebody")

    monkeypatch.setattr("apps.explorer.panes.unit.examples.show", broken)
    at = opened("unit", unit="scenes/mixed4a:11")
    assert not at.exception
    assert "Something went wrong" in at.error[0].value
    assert "secret" not in texts(at)
