"""A data set's address leads to a file under the allowed roots, or nowhere."""

from pathlib import Path

import pytest

from services.kit.core.tabular import UnusableData, locate


@pytest.fixture
def root(tmp_path: Path) -> Path:
    inside = tmp_path / "data"
    (inside / "sub").mkdir(parents=True)
    (inside / "rows one.jsonl").write_text("{}")
    (tmp_path / "secret").write_text("key")
    (inside / "link").symlink_to(tmp_path / "secret")
    (inside / "loop").symlink_to(inside / "loop")
    (inside / "away").symlink_to(tmp_path)
    return inside


def test_a_file_under_a_root_is_found_by_its_encoded_name(root: Path) -> None:
    assert locate((root / "rows one.jsonl").as_uri(), [root]) == root / "rows one.jsonl"
    assert locate(f"file://localhost{root}/sub/../rows%20one.jsonl", [root]) == root / "rows one.jsonl"


@pytest.mark.parametrize(
    "address",
    [
        "file://{root}/../secret",
        "file://{root}/%2e%2e/secret",
        "file://{root}/sub/%2e%2e%2f%2e%2e%2fsecret",
        "file://{root}/link",
        "file://{root}/away/secret",
        "file://{root}/loop",
        "file://{root}-other/x",
        "file:///etc/passwd",
        "file:///proc/self/environ",
        "file://elsewhere{root}/rows%20one.jsonl",
        "file://{root}/rows%20one.jsonl%00",
        "file:relative.jsonl",
    ],
)
def test_what_leads_out_of_the_roots_is_refused(root: Path, address: str) -> None:
    with pytest.raises(UnusableData) as caught:
        locate(address.format(root=root), [root])
    assert caught.value.code == "outside_roots"
    assert str(root) not in str(caught.value)


@pytest.mark.parametrize(
    "address", ["http://169.254.169.254/latest", "https://example.org/x", "s3://b/k", "/etc/passwd", "ftp://x/y", "x"]
)
def test_an_address_of_another_kind_is_refused(root: Path, address: str) -> None:
    with pytest.raises(UnusableData) as caught:
        locate(address, [root])
    assert caught.value.code == "unsupported_address"


def test_a_file_that_is_not_there_is_missing_only_inside_the_roots(root: Path, tmp_path: Path) -> None:
    with pytest.raises(UnusableData) as inside:
        locate((root / "nothing").as_uri(), [root])
    with pytest.raises(UnusableData) as outside:
        locate((tmp_path / "nothing").as_uri(), [root])
    assert (inside.value.code, outside.value.code) == ("missing_file", "outside_roots")
