"""The demo's data: which part of Python's library does this text describe?

Texts are docstrings, written by people. A base text's label is the chapter of the Library Reference in which
its module stands, merged to six classes. The shifted texts speak of the same six subjects as installed packages do:
a change of author, not of question. Counts move with the Python version.
"""

import json
import random
import sysconfig
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from importlib.util import find_spec
from itertools import islice
from pathlib import Path
from typing import Final

from demo.docstrings import MAX_CHARACTERS, builtin_docstrings, docstrings, mask_for, text_of
from services.kit.core.duplicates import first_likes, normalised

BASE: Final[dict[str, str]] = {
    "dev": "bdb cProfile distutils doctest ensurepip faulthandler importlib lib2to3 modulefinder pdb pkgutil profile "
    "pstats pydoc runpy timeit trace tracemalloc typing unittest venv zipapp zipimport",
    "internet": "asynchat asyncore base64 binascii cgi cgitb email ftplib http imaplib ipaddress json mailbox mailcap "
    "mimetypes nntplib poplib quopri smtpd smtplib socketserver telnetlib urllib uu uuid webbrowser wsgiref xmlrpc",
    "files": "_bz2 _csv _io _lzma _pyio _sqlite3 bz2 configparser copyreg csv dbm filecmp fileinput fnmatch "
    "genericpath glob gzip io linecache lzma netrc ntpath pathlib pickle plistlib posixpath shelve shutil sqlite3 stat "
    "tarfile tempfile tomllib zipfile zlib",
    "concurrency": "_asyncio _queue _thread _threading_local asyncio concurrent contextvars multiprocessing queue "
    "sched subprocess threading",
    "data": "_bisect _collections _collections_abc _datetime _functools _heapq _operator _pydatetime _weakrefset array "
    "bisect calendar collections copy datetime enum functools graphlib heapq itertools operator pprint reprlib types "
    "weakref zoneinfo",
    "numeric": "_decimal _pydecimal _random cmath colorsys decimal fractions math numbers random statistics",
}
"""Class to modules, by the chapters of the Library Reference."""

SHIFTED: Final[dict[str, str]] = {
    "files": "sqlalchemy",
    "data": "pydantic",
    "concurrency": "torch.distributed",
    "internet": "huggingface_hub",
    "dev": "torch.fx",
    "numeric": "scipy.stats scipy.optimize",
}
"""Class to the installed packages that write of it. Chosen because version 1 is weak on them; the docs say so."""

LABELS: Final = tuple(sorted(BASE))
SHIFTED_TEXTS_PER_LABEL: Final = 220
SHIFTED_TEXTS_READ: Final = 400
"""Texts read a label before duplicates go: enough for the limit above, and less than all of a large package."""
TEXT_CHARACTERS: Final = MAX_CHARACTERS
TRAIN_ROWS: Final = 1000
TEST_ROWS: Final = 500
REFERENCE_ROWS: Final = 500
_SKIPPED_FOLDERS: Final = frozenset(
    {"test", "tests", "idle_test", "testing", "__pycache__", "_vendor", "_vendored_packages"}
)


@dataclass(frozen=True)
class Text:
    """One labelled text, the module it was written in, and whose module that is: `stdlib` or a package."""

    text: str
    label: str
    module: str
    source: str
    split: str = ""
    """train, test or reference for the rows of the data set; empty for traffic."""


@dataclass(frozen=True)
class Corpus:
    """Everything the demo sends, shuffled by one seed. No text stands in two of these."""

    data_set: tuple[Text, ...]
    """1,000 train, 500 test and 500 reference rows."""
    quiet: tuple[Text, ...]
    """More of the same: traffic that must raise no alarm."""
    shifted: tuple[Text, ...]
    """Texts of the installed packages, from about half of their modules: traffic that is drift, and its feedback."""
    shifted_unseen: tuple[Text, ...]
    """The same packages' other modules: what the retrained version is tested on."""


def build(seed: int = 0) -> Corpus:
    """Reads, cleans, deduplicates and deals out the texts; the same seed and machine give the same corpus."""
    base, shifted = _deduplicated(base_texts(), limited(shifted_texts(seed), seed))
    dice = random.Random(seed)
    dice.shuffle(base)
    bounds = (TRAIN_ROWS, TRAIN_ROWS + TEST_ROWS, TRAIN_ROWS + TEST_ROWS + REFERENCE_ROWS)
    splits = ("train",) * bounds[0] + ("test",) * TEST_ROWS + ("reference",) * REFERENCE_ROWS
    dealt = tuple(replace(text, split=split) for text, split in zip(base, splits, strict=False))
    seen, unseen = _by_module(shifted, dice)
    return Corpus(data_set=dealt, quiet=tuple(base[bounds[2] :]), shifted=tuple(seen), shifted_unseen=tuple(unseen))


def spoiled(rows: Sequence[Text], share: float = 0.6, seed: int = 0) -> tuple[Text, ...]:
    """The same rows with the labels of `share` of the training rows shuffled among themselves; test rows stay true."""
    dice = random.Random(seed)
    train = [index for index, row in enumerate(rows) if row.split == "train"]
    chosen = dice.sample(train, round(share * len(train)))
    labels = [rows[index].label for index in chosen]
    dice.shuffle(labels)
    changed = dict(zip(chosen, labels, strict=True))
    return tuple(replace(row, label=changed.get(index, row.label)) for index, row in enumerate(rows))


def write_jsonl(rows: Iterable[Text], path: Path) -> None:
    """One JSON object a line, with the fields of `Text`."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(asdict(row), ensure_ascii=False) + "\n" for row in rows), encoding="utf-8")


def base_texts() -> list[Text]:
    """The standard library's texts, uncleaned of duplicates, in the order of labels and modules."""
    root = Path(sysconfig.get_paths()["stdlib"])
    return [
        text for label in LABELS for name in BASE[label].split() for text in _module_texts(root, name, label, "stdlib")
    ]


def shifted_texts(seed: int = 0) -> list[Text]:
    """The installed packages' texts, module after module in an order drawn by the seed, at most
    `SHIFTED_TEXTS_READ` a label; a package that is absent gives none.
    """
    matches: list[Text] = []
    for label in LABELS:
        packages = SHIFTED[label].split()
        for name in packages:
            spec = find_spec(name.split(".")[0])
            if spec is not None and spec.origin is not None:
                texts = _package_texts(Path(spec.origin).parents[1], name, label, random.Random(seed))
                matches.extend(islice(texts, SHIFTED_TEXTS_READ // len(packages)))
    return matches


def limited(texts: Sequence[Text], seed: int, limit: int = SHIFTED_TEXTS_PER_LABEL) -> list[Text]:
    """At most `limit` texts a label after near duplicates are gone, drawn by the seed."""
    retained = _without_repeats(texts)
    random.Random(seed).shuffle(retained)
    by_label: defaultdict[str, list[Text]] = defaultdict(list)
    for text in retained:
        if len(by_label[text.label]) < limit:
            by_label[text.label].append(text)
    return [text for label in LABELS for text in by_label[label]]


def _module_texts(root: Path, name: str, label: str, source: str) -> Iterator[Text]:
    files = list(_sources(root.joinpath(*name.split("."))))
    for file in files:
        yield from _texts(docstrings(file), _dotted(root, file), label, source)
    if not files:
        yield from _texts(builtin_docstrings(name), name, label, source)


def _package_texts(root: Path, name: str, label: str, dice: random.Random) -> Iterator[Text]:
    package = name.partition(".")[0]
    files = list(_sources(root.joinpath(*name.split("."))))
    dice.shuffle(files)
    for file in files:
        yield from _texts(docstrings(file), _dotted(root, file), label, package)


def _texts(documented: Iterable[tuple[str, str]], module: str, label: str, source: str) -> Iterator[Text]:
    mask = mask_for([name for part in module.split(".") for name in (part, part.lstrip("_"))])
    for qualified, document in documented:
        text = text_of(qualified, document, mask)
        if text is not None:
            yield Text(text=text, label=label, module=module, source=source)


def _sources(path: Path) -> Iterator[Path]:
    if path.with_suffix(".py").is_file():
        yield path.with_suffix(".py")
    elif path.is_dir():
        for file in sorted(path.rglob("*.py")):
            if not _SKIPPED_FOLDERS.intersection(file.relative_to(path).parts):
                yield file


def _dotted(root: Path, file: Path) -> str:
    parts = file.relative_to(root).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def _without_repeats(texts: Sequence[Text]) -> list[Text]:
    """Drops near duplicates, and every text that carries two labels."""
    labels: defaultdict[str, set[str]] = defaultdict(set)
    likes = first_likes([text.text for text in texts])
    for text, like in zip(texts, likes, strict=True):
        labels[normalised(texts[like].text if like is not None else text.text)].add(text.label)
    return [
        text
        for text, like in zip(texts, likes, strict=True)
        if like is None and len(labels[normalised(text.text)]) == 1
    ]


def _deduplicated(base: Sequence[Text], shifted: Sequence[Text]) -> tuple[list[Text], list[Text]]:
    """Both without repeats, and without a shifted text that the base has."""
    retained = _without_repeats(base)
    likes = first_likes([text.text for text in (*retained, *shifted)])
    return retained, [text for text, like in zip(shifted, likes[len(retained) :], strict=True) if like is None]


def _by_module(texts: Sequence[Text], dice: random.Random) -> tuple[list[Text], list[Text]]:
    """Two halves of each label's texts, no module in both; a module as large as the rest falls to the first half."""
    halves: tuple[list[Text], list[Text]] = ([], [])
    for label in LABELS:
        modules: defaultdict[str, list[Text]] = defaultdict(list)
        for text in texts:
            if text.label == label:
                modules[text.module].append(text)
        sizes = [0, 0]
        for name in sorted(modules, key=lambda module: (-len(modules[module]), module)):
            side = 0 if sizes[0] <= sizes[1] else 1
            halves[side].extend(modules[name])
            sizes[side] += len(modules[name])
    for half in halves:
        dice.shuffle(half)
    return halves
