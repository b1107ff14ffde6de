"""What a run is about: a network and a data set, from whatever the caller has."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch

from specmine.config import Config
from specmine.data import Dataset, card_names, check_against_model, check_known, from_arrays, load_dataset, model_path, read_npz
from specmine.errors import BadConfig, BadModel
from specmine.tracing import Sites, compare_with_original
from verifier.formats import read_network
from verifier.formats.torch_export import read_module
from verifier.network import Network

Model: TypeAlias = Path | str | torch.nn.Module | Network
Data: TypeAlias = Path | str | Dataset | tuple[Any, Any]


@dataclass(frozen=True, eq=False)
class Inputs:
    """The network and its data. source: how to load the same data again, None where it came as arrays."""

    network: Network
    dataset: Dataset
    source: Mapping[str, Any] | None


def load_inputs(model: Model | None, data: Data, *, config: Config, data_dir: Path | str | None = None) -> Inputs:
    """Reads model and data; checks that they fit, what the configuration names, and that the network computes what its
    original does.

    model: an ONNX file, a torch module, or None for the model kept with a known data set. data: the name of a known data
    set, an npz file of x and y, a Dataset, or a pair of arrays.
    """
    dataset, source = load_data(data, config=config, data_dir=data_dir)
    original = _shipped_model(data) if model is None else model
    network = load_model(original, dataset)
    check_names(config, Sites(network))
    check_against_model(dataset, network.size(network.input), network.size(network.output))
    if isinstance(original, torch.nn.Module) or (isinstance(original, str | Path) and is_onnx(original)):
        compare_with_original(network, original, dataset.x)
    return Inputs(network, dataset, source)


def is_onnx(path: Path | str) -> bool:
    """Whether a model file holds ONNX, so that others can run it; a .network file is itself the original."""
    return str(path).lower().endswith((".onnx", ".onnx.gz"))


def load_data(data: Data, *, config: Config, data_dir: Path | str | None = None) -> tuple[Dataset, Mapping[str, Any] | None]:
    """The data set and how to load it again."""
    if isinstance(data, Dataset):
        return data, None
    if isinstance(data, tuple):
        return from_arrays(*data, seed=config.seed), None
    if str(data) in card_names():
        folder = None if data_dir is None else str(Path(data_dir).resolve())
        return load_dataset(str(data), data_dir=data_dir), {"name": str(data), "data_dir": folder}
    check_known(str(data))
    return read_npz(data, seed=config.seed), {"npz": str(Path(data).resolve())}


def reload_data(source: Mapping[str, Any], *, config: Config) -> Dataset:
    """The data set of a run's source."""
    if "npz" in source:
        return load_data(source["npz"], config=config)[0]
    return load_data(source["name"], config=config, data_dir=source["data_dir"])[0]


def load_model(model: Model, dataset: Dataset) -> Network:
    """The network of an ONNX file, a torch module (exported for one sample), or itself."""
    match model:
        case Network():
            return model
        case torch.nn.Module():
            parameter = next(model.parameters(), None)
            dtype = torch.float32 if parameter is None else parameter.dtype
            return read_module(model, torch.as_tensor(np.array(dataset.x[:1]), dtype=dtype))
        case str() | Path():
            return read_network(Path(model))
    raise BadModel(f"a model is an ONNX file or a torch.nn.Module, got {type(model).__name__}")


def check_names(config: Config, sites: Sites) -> None:
    """Raises BadConfig for attention alone where there are no attention heads, BadClause for a site that there is not."""
    if set(config.families) == {"attention"} and not sites.attention_sites:
        raise BadConfig(
            "this network has no attention heads, so the family attention has nothing to mine; name other families, such as "
            "--families unary"
        )
    for site in config.sites:
        sites.value(site)


def _shipped_model(data: Data) -> Path:
    name = str(data) if isinstance(data, (str, Path)) else "the given arrays"
    path = model_path(name) if name in card_names() else None
    if path is None:
        raise BadModel(f"no model is kept with {name}; give one (--model net.onnx), or train one (specmine train)")
    return path
