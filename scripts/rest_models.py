"""The wire models of the REST control API, as pydantic classes: one module a .proto, made from its descriptors.

What goes out has the fields of its message. What comes in by a body has those that the path does not name, and what
comes in by a query has its page flattened. Comments of the .proto become descriptions.
"""

import subprocess
import sys
import tempfile
import textwrap
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from google.protobuf import descriptor_pb2, descriptor_pool
from google.protobuf.descriptor import Descriptor, FieldDescriptor, FileDescriptor

from scripts.rest_examples import BODIES, sample_of

PACKAGE: Final = "services.gateway.inbound.http.models"
TIMESTAMP: Final = "google.protobuf.Timestamp"
FILE: Final = str(Path(__file__).parents[1] / PACKAGE.replace(".", "/") / "generated.py")
LINE_WIDTH: Final = 120
DESCRIPTION_WIDTH: Final = 90
PAGE: Final = "millrace.v1.Page"
UPLOAD: Final = ("UploadHeader", "UploadedDataset")
"""What of the one client stream REST has: its header is the query, its last message the answer."""

WITH_JSON_OF_ITS_OWN: Final = frozenset({"Generate"})
"""Methods whose request by REST is not their message in JSON: `http/generation_models.py` has it."""

MODULES: Final = {"common": "fragments"}
"""Modules with a name of their own: the messages of common.proto are parts of others."""

IN_PATH: Final[Mapping[str, tuple[str, ...]]] = {
    "CancelBatchRequest": ("batch",),
    "CancelRunRequest": ("run",),
    "ClassifyRequest": ("deployment",),
    "EmbedRequest": ("deployment",),
    "GetBatchOutputRequest": ("batch",),
    "GetBatchRequest": ("batch",),
    "GetDatasetRequest": ("dataset",),
    "GetDatasetVersionRequest": ("dataset", "content_hash"),
    "GetDeadLetterRequest": ("topic", "partition", "offset"),
    "GetDeploymentHealthRequest": ("deployment",),
    "GetDeploymentRequest": ("deployment",),
    "GetLineageRequest": ("model", "version"),
    "GetModelRequest": ("model",),
    "GetRunLogsRequest": ("run",),
    "GetRunRequest": ("run",),
    "GetVersionRequest": ("model", "version"),
    "GetWindowRequest": ("deployment", "number"),
    "ListDatasetVersionsRequest": ("dataset",),
    "ListVerdictsRequest": ("deployment",),
    "ListVersionsRequest": ("model",),
    "ListWindowsRequest": ("deployment",),
    "MoveRolloutRequest": ("deployment",),
    "RevokeKeyRequest": ("key",),
    "SendFeedbackRequest": ("deployment",),
    "SetAliasRequest": ("model", "alias"),
    "StartRolloutRequest": ("deployment",),
    "UpdateDeploymentRequest": ("deployment",),
    "UploadHeader": ("dataset",),
}
"""By message: the fields that stand in the path."""

REQUIRED: Final[Mapping[str, tuple[str, ...]]] = {
    "AnnounceDatasetRequest": ("dataset", "uri", "model"),
    "ClassifyRequest": ("texts",),
    "CreateBatchRequest": ("deployment", "uri"),
    "CreateDeploymentRequest": ("deployment", "model"),
    "CreateKeyRequest": ("role",),
    "EmbedRequest": ("texts",),
    "SendFeedbackRequest": ("request_id",),
    "SetAliasRequest": ("version",),
    "StartRolloutRequest": ("version",),
    "StartRunRequest": ("dataset",),
}
"""By message: the fields without which a body is refused."""

OPTIONAL: Final[Mapping[str, tuple[str, ...]]] = {
    "BatchRow": ("label", "score", "scores", "version", "embedding", "answer_json"),
    "ClassifyResponse": ("embeddings",),
}
"""By message: the fields that an answer may lack, where raw ASGI writes what the task has to say."""

HIDDEN: Final[Mapping[str, tuple[str, ...]]] = {"ClassifyRequest": ("mirrored", "tenant")}
"""By message: what services tell each other, and clients never send."""

HEADER: Final = '''"""The wire models of `{name}`, generated: change the .proto, and run `make contracts`."""

from typing import Annotated

from pydantic import ConfigDict, Field

from services.gateway.inbound.http.wire_model import (
    NOT_EMPTY, Absent, BodyModel, PagedQueryModel, QueryBool, QueryModel, QueryUInt32, ResponseModel, Text, Timestamp,
    UInt32,
)
'''

_MESSAGE, _FIELD = 4, 2
"""The numbers of `message_type` and `field` in descriptor.proto, of which the paths of comments are made."""

_SCALARS: Final = {
    FieldDescriptor.CPPTYPE_STRING: "Text",
    FieldDescriptor.CPPTYPE_BOOL: "bool",
    FieldDescriptor.CPPTYPE_UINT32: "UInt32",
    FieldDescriptor.CPPTYPE_DOUBLE: "float",
    FieldDescriptor.CPPTYPE_FLOAT: "float",
}
_EMPTY: Final = {"QueryBool": "bool", "QueryUInt32": "int"}
_QUERY_SCALARS: Final = {"bool": "QueryBool", "UInt32": "QueryUInt32"}


def rest_models(proto_folder: Path) -> dict[str, str]:
    """By module name: the source of its models."""
    files = _descriptors(proto_folder)
    bodies, others = _reached(file for file, _ in files)
    modules = [_Module(file, comments, bodies, others) for file, comments in files]
    sources = {module.name: module.source() for module in modules}
    return {name: _formatted(source) for name, source in sources.items() if "\nclass " in source}


def _reached(files: Iterable[FileDescriptor]) -> tuple[set[str], set[str]]:
    """Full names of the messages of bodies, and of the others that REST has: queries and answers."""
    bodies: set[str] = set()
    others: set[str] = set()
    for file in files:
        for service in file.services_by_name.values():
            for method in service.methods:
                if method.client_streaming or method.name in WITH_JSON_OF_ITS_OWN:
                    continue
                reads = method.name.startswith(("Get", "List"))
                _reach(method.input_type, others if reads else bodies)
                _reach(method.output_type, others)
        for name in UPLOAD:
            if (message := file.message_types_by_name.get(name)) is not None:
                _reach(message, others)
    return bodies, others


def _reach(message: Descriptor, names: set[str]) -> None:
    if message.full_name in names or message.full_name.startswith("google."):
        return
    names.add(message.full_name)
    for spec in message.fields:
        if spec.message_type is not None:
            _reach(spec.message_type, names)


def _descriptors(proto_folder: Path) -> list[tuple[FileDescriptor, Mapping[str, str]]]:
    """Each file of ours, with its comments by the name of what they are about."""
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder, "set")
        protos = sorted((proto_folder / "millrace/v1").glob("*.proto"))
        command = [sys.executable, "-m", "grpc_tools.protoc", f"-I{proto_folder}", "--include_imports"]
        command += ["--include_source_info", f"--descriptor_set_out={target}", *map(str, protos)]
        subprocess.run(command, check=True)
        descriptors = descriptor_pb2.FileDescriptorSet.FromString(target.read_bytes())
    pool = descriptor_pool.DescriptorPool()
    made = []
    for file in descriptors.file:
        pool.Add(file)
        if file.package == "millrace.v1":
            made.append((pool.FindFileByName(file.name), _comments(file)))
    return made


def _comments(file: descriptor_pb2.FileDescriptorProto) -> Mapping[str, str]:
    """By the full name of a message or a field."""
    by_path = {tuple(one.path): _comment(one) for one in file.source_code_info.location}
    comments: dict[str, str] = {}
    for index, message in enumerate(file.message_type):
        name = f"{file.package}.{message.name}"
        comments[name] = by_path.get((_MESSAGE, index), "")
        for number, spec in enumerate(message.field):
            comments[f"{name}.{spec.name}"] = by_path.get((_MESSAGE, index, _FIELD, number), "")
    return comments


def _comment(location: Any) -> str:
    return " ".join(f"{location.leading_comments} {location.trailing_comments}".split())


class _Module:
    """One .proto on its way to a module."""

    def __init__(self, file: FileDescriptor, comments: Mapping[str, str], bodies: set[str], others: set[str]) -> None:
        self.name = _module_name(file)
        self._file = file
        self._comments = comments
        self._bodies = bodies
        self._others = others
        self._imports: set[str] = set()

    def source(self) -> str:
        classes = [self._class(message) for message in _in_order(self._file) if message.full_name != PAGE]
        imports = [f"from {PACKAGE}.{name} import {one}" for name, one in sorted(self._split_imports())]
        return HEADER.format(name=self._file.name) + "\n".join(imports) + "\n\n" + "\n\n".join(filter(None, classes))

    def _split_imports(self) -> Iterator[tuple[str, str]]:
        for full in self._imports:
            module, _, name = full.partition(":")
            yield module, name

    def _class(self, message: Descriptor) -> str:
        if message.full_name in self._bodies:
            return self._model(message, message.name, "BodyModel", query=False)
        if message.full_name not in self._others:
            return ""
        if message.name.startswith(("Get", "List")) and message.name.endswith("Request"):
            return self._model(message, message.name.removesuffix("Request") + "Query", "QueryModel", query=True)
        if message.name == "UploadHeader":
            return self._model(message, "UploadQuery", "QueryModel", query=True)
        return self._model(message, message.name, "ResponseModel", query=False)

    def _model(self, message: Descriptor, name: str, base: str, *, query: bool) -> str:
        without = {*IN_PATH.get(message.name, ()), *HIDDEN.get(message.name, ())}
        fields = [spec for spec in message.fields if spec.name not in without]
        lines = [line for spec in fields for line in self._lines(message, spec, base, query=query)]
        if base == "QueryModel" and not lines:
            return ""
        if query and any(spec.message_type is not None and spec.message_type.full_name == PAGE for spec in fields):
            base = "PagedQueryModel"
        example = BODIES.get(message.name)
        config = [f'    model_config = ConfigDict(json_schema_extra={{"examples": [{example!r}]}})'] if example else []
        comment = self._comments.get(message.full_name, "")
        text = textwrap.indent(textwrap.fill(f'"""{comment}"""', LINE_WIDTH - 4), "    ") + "\n" if comment else ""
        body = "\n".join([*config, *lines]) or ("" if text else "    pass")
        return f"class {name}({base}):\n{text}\n{body}\n"

    def _lines(self, message: Descriptor, spec: FieldDescriptor, base: str, *, query: bool) -> Iterator[str]:
        inner = spec.message_type
        if query and inner is not None and inner.full_name == PAGE:
            for one in inner.fields:
                yield from self._lines(message, one, base, query=True)
            return
        kind, extra = self._type(spec, query=query), []
        if base == "ResponseModel":
            kind = kind.replace("Text", "str")
        if spec.name in REQUIRED.get(message.name, ()):
            kind = f"Annotated[{kind}, NOT_EMPTY]"
        elif query:
            extra = [f"default_factory={_EMPTY.get(kind, 'str')}"]
        elif base == "BodyModel":
            kind, extra = f"{kind} | None", ["default=None"]
        elif (spec.has_presence and not spec.is_repeated) or spec.name in OPTIONAL.get(message.name, ()):
            kind, extra = f"{kind} | Absent", ["default=None"]
        if comment := self._comments.get(spec.full_name, ""):
            pieces = textwrap.wrap(comment, DESCRIPTION_WIDTH, drop_whitespace=False)
            extra.append(f"description=({' '.join(map(repr, pieces))})")
        if _is_plain(spec) and (sample := sample_of(spec)) is not None:
            extra.append(f"examples=[{sample!r}]")
        yield f"    {spec.name}: {kind}" + (f" = Field({', '.join(extra)})" if extra else "")

    def _type(self, spec: FieldDescriptor, *, query: bool) -> str:
        inner = spec.message_type
        if inner is None:
            if spec.type == FieldDescriptor.TYPE_BYTES:
                return "str"
            scalar = _SCALARS[spec.cpp_type]
            kind = _QUERY_SCALARS.get(scalar, scalar) if query else scalar
        elif inner.full_name == TIMESTAMP:
            kind = "Timestamp"
        elif inner.GetOptions().map_entry:
            return f"dict[str, {self._type(inner.fields_by_name['value'], query=query)}]"
        else:
            kind = inner.name
            if inner.file.name != self._file.name:
                self._imports.add(f"{_module_name(inner.file)}:{inner.name}")
        return f"list[{kind}]" if spec.is_repeated else kind


def _module_name(file: FileDescriptor) -> str:
    stem = Path(file.name).stem
    return MODULES.get(stem, stem)


def _is_plain(spec: FieldDescriptor) -> bool:
    inner = spec.message_type
    return inner is None or inner.full_name == TIMESTAMP or bool(inner.GetOptions().map_entry)


def _in_order(file: FileDescriptor) -> Iterator[Descriptor]:
    """The messages, each after those that it holds."""
    seen: set[str] = set()

    def walk(message: Descriptor) -> Iterator[Descriptor]:
        if message.full_name in seen or message.file.name != file.name:
            return
        seen.add(message.full_name)
        for spec in message.fields:
            if spec.message_type is not None:
                yield from walk(spec.message_type)
        if not message.GetOptions().map_entry:
            yield message

    for message in file.message_types_by_name.values():
        yield from walk(message)


def _formatted(source: str) -> str:
    command = [str(Path(sys.executable).parent / "ruff")]
    fixed = subprocess.run(
        [*command, "check", "--quiet", "--select", "F401,I", "--fix-only", "--no-cache", "--stdin-filename", FILE, "-"],
        input=source,
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    return subprocess.run(
        [*command, "format", "--quiet", "--no-cache", "-"], input=fixed, capture_output=True, text=True, check=True
    ).stdout
