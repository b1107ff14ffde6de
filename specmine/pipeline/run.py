"""A run: its folder, its inputs, its configuration, and what it has reached so far."""

import hashlib
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

import specmine
import verifier
from specmine.config import Config, make_config
from specmine.data import Dataset, read_npz
from specmine.document import from_json, region_document, to_json
from specmine.errors import BadConfig, BadRun
from specmine.exhibit import Exhibit, Gain, Strong
from specmine.folder import claim_folder, existing, read_json, read_manifest, write_json, write_text, writing
from specmine.pipeline.inputs import Inputs, check_names, reload_data
from specmine.pipeline.propose import check_head, sites_needed
from specmine.pipeline.provenance import provenance
from specmine.progress import SILENT, Progress
from specmine.regions import region_named
from specmine.spec import Coverage, Spec
from specmine.tracing import Sites, Source, Stream, classes_of, trace
from specmine.verification import Store, outcomes
from verifier.formats.archive import read_archive, write_network

CLAIMS, SECONDS = "claims.json", "seconds.json"
FAMILIES, STRONGEST = "families.json", "strongest.json"
MODEL, DATA = "model.network", "data.npz"
EFFORT = ("timeout_s", "budget_s", "engine", "jobs", "exports", "memory_mb", "cluster")
"""Settings that may change from one start of a run to the next; the others are part of what the run is."""


@dataclass(frozen=True, eq=False)
class Run:
    """A run in its folder. What it has reached is read from there, so it is the same after a restart."""

    folder: Path
    inputs: Inputs
    config: Config
    progress: Progress = SILENT

    @cached_property
    def sites(self) -> Sites:
        """The site names of the run's network."""
        return Sites(self.inputs.network)

    @property
    def dataset(self) -> Dataset:
        """The run's samples."""
        return self.inputs.dataset

    @cached_property
    def source(self) -> Source:
        """The values of all samples: kept where half the memory holds them, else computed anew whenever they are looked at."""
        sites, x = self.sites, self.dataset.x
        keep = sites_needed(sites, self.config)
        needed = 8 * len(x) * sum(sites.size(site) for site in keep)
        if needed > self.config.memory_mb * 2**20 / 2:
            return Stream(sites, x)
        return trace(sites, x, keep=keep, progress=self.progress)

    @cached_property
    def predictions(self) -> NDArray[np.int64]:
        """The network's class (samples,) for each sample, -1 where outputs tie."""
        return classes_of(self.source)

    @cached_property
    def store(self) -> Store:
        """The verdicts on disk."""
        return Store(self.folder)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the seconds of the block to those of the stage, also over restarts."""
        begin = time.monotonic()
        yield
        seconds = self.seconds
        write_json(self.folder / SECONDS, seconds | {name: round(seconds.get(name, 0.0) + time.monotonic() - begin, 3)})

    @property
    def seconds(self) -> dict[str, float]:
        """Wall clock by stage so far, over all starts."""
        return read_json(self.folder / SECONDS) if (self.folder / SECONDS).exists() else {}

    def write_claims(self, spec: Spec) -> None:
        """Keeps claims with evidence and witnesses; their verdicts are in the store."""
        write_text(self.folder / CLAIMS, to_json(spec))

    @property
    def spec(self) -> Spec:
        """The claims with all that is known of them; without claims where the run has not come that far."""
        path = self.folder / CLAIMS
        if not path.exists():
            return Spec((), provenance(self.inputs, self.config), Coverage(0, 0, {}), self.seconds)
        written = from_json(path.read_text(encoding="utf-8"), str(path))
        _check_regions(written, self.dataset, path)
        claims = tuple(outcomes(written.claims, self.sites, self.store))
        return replace(written, claims=claims, seconds=self.seconds)

    @property
    def exhibit(self) -> Exhibit:
        """The Spec as it stands, with network, samples and traces."""
        gains = tuple(map(Gain.read, self.read(FAMILIES)))
        return Exhibit(self.spec, self.dataset, self.sites, self.source, self.predictions, gains, self.strongest)

    @property
    def strongest(self) -> tuple[Strong, ...]:
        """The strongest predicates of each head and family, the strongest first; none where the run has not come that far."""
        return tuple(map(Strong.read, self.read(STRONGEST)))

    def read(self, name: str) -> list[Any]:
        """The list in a JSON file of the run, empty where the run has not come that far."""
        path = self.folder / name
        return read_json(path) if path.exists() else []


def start_run(folder: Path, inputs: Inputs, config: Config, progress: Progress = SILENT) -> Run:
    """Takes the folder for a run on these inputs, or goes on with the run that has them already.

    Raises BadRun where the folder belongs to another run or cannot be written.
    """
    check_head(Sites(inputs.network), inputs.dataset, config)
    details = {"config": config.model_dump(mode="json"), "source": inputs.source, "name": inputs.dataset.name}
    claim_folder(folder, identity(inputs, config), details)
    if not (folder / MODEL).exists():
        with writing(folder / MODEL) as path:
            write_network(inputs.network, path)
    if inputs.source is None and not (folder / DATA).exists():
        with writing(folder / DATA) as path:
            _write_data(inputs.dataset, path)
    return Run(folder, inputs, config, progress)


def open_run(folder: Path | str, *, progress: Progress = SILENT, **effort: Any) -> Run:
    """The run of a folder, finished or not; effort: settings of EFFORT that replace those of its start.

    Raises BadRun where the folder is no run, or its data is not there any more or has changed.
    """
    folder = existing(folder)
    manifest = read_manifest(folder)
    details = manifest["details"]
    config = make_config(**(details["config"] | {key: value for key, value in effort.items() if value is not None}))
    source = details["source"]
    if not (folder / MODEL).exists() or (source is None and not (folder / DATA).exists()):
        raise BadRun(f"the run in {folder} was stopped before it had written its inputs; start it again with the same --out")
    dataset = read_npz(folder / DATA, name=details["name"]) if source is None else reload_data(source, config=config)
    network = read_archive(folder / MODEL)
    inputs = Inputs(network, dataset, source)
    check_names(config, Sites(network))
    claim_folder(folder, identity(inputs, config), details)
    return Run(folder, inputs, config, progress)


def _check_regions(spec: Spec, dataset: Dataset, path: Path) -> None:
    """Raises BadRun where a region is not the one that its name stands for: a proof over less is none over the domain."""
    for name, region in {claim.region.name: claim.region for claim in spec.claims}.items():
        try:
            same = region_document(region) == region_document(region_named(dataset, name))
        except BadConfig:
            same = False
        if not same:
            raise BadRun(f"{path} is damaged: its region {name!r} is not that of the run's data; delete it and run again")


def identity(inputs: Inputs, config: Config) -> Mapping[str, Any]:
    """What a run is about: a resumed run must agree in all of it, the versions too, so that no old verdict outlives a mend."""
    dataset = inputs.dataset
    bounds = np.concatenate([dataset.domain.lower, dataset.domain.upper])
    settings = {key: value for key, value in config.model_dump(mode="json").items() if key not in EFFORT}
    return {
        "model": inputs.network.sha256,
        "data": dataset.sha256,
        "domain": hashlib.sha256(bounds.astype("<f8").tobytes()).hexdigest(),
        "config": settings,
        "versions": {"specmine": specmine.__version__, "verifier": verifier.__version__},
    }


def _write_data(dataset: Dataset, path: Path) -> None:
    domain = dataset.domain
    with open(path, "wb") as file:
        np.savez_compressed(
            file,
            x=dataset.x,
            y=dataset.y,
            split=dataset.split,
            lower=domain.lower,
            upper=domain.upper,
            classes=np.array(dataset.classes),
        )
