"""The configuration of a run: what to mine, where to prove it, how long to try."""

import difflib
import re
import tomllib
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, ValidationInfo, field_validator

from specmine.errors import BadConfig
from verifier.task import ENGINE_NAMES

Delta = Annotated[float, Field(ge=0, lt=1)]
Count = Annotated[int, Field(ge=1)]
Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Locality = Literal["window", "layer", "neighbour"]
Synthesis = Literal["threshold", "smallest", "peel", "polytope", "cover", "layered"]

FAMILY_NAMES = ("unary", "binary", "ternary", "attention", "output")
"""The keys of `specmine.predicates.families.FAMILIES`, for who must not wait for its imports."""
EXPORTER_NAMES = ("smtlib", "prolog", "json", "chc")
"""The keys of `specmine.export.EXPORTERS`, likewise."""

NAMED = {
    "families": ("predicate family", FAMILY_NAMES),
    "exports": ("exporter", EXPORTER_NAMES),
    "engine": ("engine", ENGINE_NAMES),
}
"""What the values of a key name, and which names there are."""

REGION = re.compile(r"domain|data|ball:(?P<radius>\d+(\.\d+)?([eE][-+]?\d+)?)")


class Config(BaseModel):
    """Every option of `mine`, each with its default; unknown keys are errors.

    The fields are the keys of a TOML configuration file and, with dashes for underscores, the options of
    `specmine mine`.
    """

    model_config = ConfigDict(extra="forbid", frozen=True)

    seed: int = Field(0, description="seed of everything random")
    families: tuple[str, ...] = Field(("unary",), min_length=1, description="predicate families to mine from")
    sites: tuple[str, ...] = Field((), description="sites to mine from, such as h2; all activation outputs where empty")
    thresholds: Count = Field(8, description="quantile thresholds of each neuron or other measure: the abstract domain size")
    partners: Count = Field(8, description="other neurons that a neuron is compared with")
    locality: tuple[Locality, ...] = Field(
        ("window", "layer", "neighbour"),
        min_length=1,
        description="which neurons may be compared: in one window, layer, or two layers",
    )
    head: str = Field(
        "class", description="what predicates are ranked for: class, label, right, FILE.npz:COLUMN, or a predicate to derive"
    )
    memory_mb: Annotated[float, Field(gt=0, allow_inf_nan=False)] = Field(
        1024.0, description="megabytes for values of the network at a time; samples that need more are traced in passes"
    )
    cluster: str | None = Field(None, description="address of a dask scheduler whose workers make the passes over the samples")
    compare_families: bool = Field(True, description="measure what each family adds, where more than one is mined")
    synthesis: tuple[Synthesis, ...] = Field(
        ("threshold", "smallest", "peel", "polytope"), description="how bodies are put together"
    )
    deltas: tuple[Delta, ...] = Field((0.0, 0.05), description="threshold composition: a literal may miss this share")
    recall: Annotated[float, Field(gt=0, le=1)] = Field(
        0.95, description="smallest bodies: recall to keep on the class; refined ones keep less where none with it is proved"
    )
    precision: Annotated[float, Field(gt=0, le=1)] = Field(
        1.0, description="smallest bodies: share of the samples under a body that must be of the class"
    )
    max_body: Count | None = Field(None, description="smallest bodies and refinement: literals that a body may have")
    refine: bool = Field(True, description="look for bodies that are proved, with the verifier's counterexamples as samples")
    refine_s: Seconds = Field(3.0, description="seconds of refinement for each head")
    depth: Count | None = Field(
        None,
        description="layered theories: layers before the last hidden one, the input last; to the first hidden one by default",
    )
    max_clauses: Count = Field(4, description="clauses a class from each way of synthesis")
    regions: tuple[str, ...] = Field(
        ("domain",), description="where to prove: domain, data (the range of the mining samples), or ball:RADIUS"
    )
    balls_per_class: Count = Field(3, description="balls a class and radius")
    timeout_s: Seconds = Field(5.0, description="seconds to decide one claim")
    budget_s: Seconds = Field(100.0, description="seconds to decide all claims; the rest stay unchecked")
    engine: str = Field("auto", description="engine of the verifier")
    jobs: Count = Field(2, description="threads")
    exports: tuple[str, ...] = Field(
        ("smtlib", "prolog", "json"),
        description="what to export at the end of a run; smtlib only where the network has at most 100,000 weights",
    )

    @field_validator(*NAMED)
    @classmethod
    def _names_are_known(cls, value: Any, info: ValidationInfo) -> Any:
        part, known = NAMED[str(info.field_name)]
        problem = unknown_name(part, [value] if isinstance(value, str) else value, known)
        if problem:
            raise ValueError(problem)
        return value

    @field_validator("regions")
    @classmethod
    def _regions_are_known(cls, regions: tuple[str, ...]) -> tuple[str, ...]:
        for region in regions:
            if not REGION.fullmatch(region):
                raise ValueError(
                    f"{region!r} is not a region; write domain, data, or ball:RADIUS with a radius >= 0, such as ball:0.05"
                )
        return regions


def make_config(path: Path | str | None = None, **overrides: Any) -> Config:
    """The configuration of a TOML file (or the defaults) with overrides on top; an override of None is none.

    Raises BadConfig naming every unknown or ill-typed key.

    >>> make_config(seed=3, recall=None).seed
    3
    """
    values = _read_toml(Path(path)) if path is not None else {}
    values |= {key: value for key, value in overrides.items() if value is not None}
    try:
        return Config(**values)
    except ValidationError as error:
        problems = "; ".join(_describe(detail) for detail in error.errors())
        raise BadConfig(f"{path or 'configuration'}: {problems}") from error


def unknown_name(part: str, names: Iterable[str], known: Sequence[str]) -> str:
    """What to say of the first of the names that is none of the known, and the nearest of these; nothing where all are known.

    >>> unknown_name("exporter", ["json", "prollog"], ("json", "prolog"))
    "no exporter 'prollog'; nearest is prolog; known are json, prolog"
    """
    for name in names:
        if name not in known:
            near = difflib.get_close_matches(name, known, n=1, cutoff=0.6)
            meant = f"; nearest is {near[0]}" if near else ""
            return f"no {part} {name!r}{meant}; known are {', '.join(known)}"
    return ""


def _read_toml(path: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadConfig(f"cannot read configuration {path}: {error}; give a TOML file of keys such as seed = 0") from error


def _describe(detail: Any) -> str:
    key = ".".join(map(str, detail["loc"]))
    if detail["type"] == "value_error":
        return f"key {key!r}: {detail['ctx']['error']}"
    if detail["type"] != "extra_forbidden":
        return f"key {key!r}: {detail['msg']}, got {detail['input']!r}"
    known = list(Config.model_fields)
    near = difflib.get_close_matches(key, known, n=3, cutoff=0.5) or known
    return f"unknown key {key!r}; nearest are {', '.join(near)}"
