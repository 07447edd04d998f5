"""Data sets of the Hugging Face hub, through `datasets`."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from bertlora.data.source import BATCH_ROWS, Batch, Source, class_name
from bertlora.errors import DataError, HubError

# MNLI of GLUE has two validation sets. The second one has a configuration of its own: nyu-mll/glue/mnli_mismatched.
SPLIT_ALIASES = {
    "train": ("train",),
    "validation": ("validation", "valid", "val", "dev", "validation_matched"),
    "test": ("test", "test_matched"),
}
ANSWER_S = 10.0
OFFLINE_ADVICE = "offline, download its files elsewhere and give them as train=FILE validation=FILE test=FILE"


def named_classes(features: Mapping[str, Any], columns: Sequence[str]) -> dict[str, list[str]]:
    """Returns the names of the classes of each column that has some; a column of lists names those of its items."""
    items: dict[str, Any] = {c: getattr(features.get(c), "feature", features.get(c)) for c in columns}
    return {column: list(item.names) for column, item in items.items() if hasattr(item, "int2str")}


class HubSource:
    """One split of a hub data set, memory-mapped by `datasets`. Positions are rows, counted from 0."""

    def __init__(self, dataset: Any, name: str) -> None:
        self.name = name
        self.columns: list[str] = list(dataset.column_names)
        features = dataset.features or {}
        self.class_names = named_classes(features, self.columns)
        self.notes: list[str] = []
        self._dataset = dataset

    def batches(self, columns: Sequence[str]) -> Iterator[Batch]:
        """Yields all rows in order; see `Source.batches`."""
        row = 0
        for part in self._dataset.select_columns(list(columns)).iter(batch_size=BATCH_ROWS):
            values: dict[str, list[object]] = {column: list(part[column]) for column in columns}
            for column in self.class_names.keys() & values.keys():
                values[column] = [class_name(value, self.class_names[column]) for value in values[column]]
            rows = len(values[columns[0]])
            yield Batch(values, list(range(row, row + rows)))
            row += rows

    def place(self, position: int) -> str:
        """Returns the split's name and the row."""
        return f"{self.name} row {position}"


def open_hub(name: str) -> dict[str, Source]:
    """Opens a hub data set: `owner/name`, `owner/name/config`, `name` or `name/config`.

    Returns:
        Those of its splits that are train, validation or test; {"": source} if it has only one split, with another
        name.

    Raises:
        DataError: it has none of these splits.
        HubError: the hub cannot be reached, or does not have the data set.
    """
    splits = _load(name)
    # Some hub splits have rows but no labels: IMDB's `unsupervised`.
    found: dict[str, Source] = {}
    for split, aliases in SPLIT_ALIASES.items():
        known = next((alias for alias in aliases if alias in splits), None)
        if known:
            source = HubSource(splits[known], f"hub:{name} {known}")
            if known.endswith("_matched"):
                source.notes.append(f"{source.name}: the mismatched set was left out")
            found[split] = source
    if found:
        return found
    if len(splits) == 1:
        (only,) = splits
        return {"": HubSource(splits[only], f"hub:{name} {only}")}
    raise DataError(f"hub:{name}: its splits are {', '.join(splits)}, expected train, validation or test")


def _load(name: str) -> dict[str, Any]:
    parts = name.split("/")
    if not all(parts) or len(parts) > 3:
        raise DataError(f"hub:{name}: expected hub:NAME or hub:NAME/CONFIG, such as hub:nyu-mll/glue/sst2")
    # a/b is an owner and a name, or an old name without an owner (glue) and a configuration (sst2).
    ways: list[list[str]] = [["/".join(parts[:2]), *parts[2:]]]
    if len(parts) == 2:
        ways.append(parts)
    from datasets import config, load_dataset

    errors: list[Exception] = []
    offline = config.HF_HUB_OFFLINE
    if not offline and (unreachable := _unreachable(ways[0][0])):
        errors.append(unreachable)
        config.HF_HUB_OFFLINE = True  # datasets then looks only into its cache
    try:
        for way in ways:
            try:
                return dict(load_dataset(*way))
            except Exception as error:  # datasets, its hub client and its HTTP client raise many types
                errors.append(error)
    finally:
        config.HF_HUB_OFFLINE = offline
    raise _hub_error(name, errors[0]) from errors[0]


def _unreachable(repository: str) -> Exception | None:
    """Returns why the hub does not answer, or None if it does. (datasets itself would retry for half a minute.)"""
    from huggingface_hub import HfApi
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError

    try:
        HfApi().dataset_info(repository, timeout=ANSWER_S)
    except (HfHubHTTPError, HFValidationError):
        return None  # it answers, or is not needed; an error about the name comes up again below
    except Exception as error:  # its HTTP clients raise many types
        return error
    return None


def _hub_error(name: str, error: Exception) -> HubError:
    from datasets.exceptions import DatasetNotFoundError

    reason = (str(error).strip() or type(error).__name__).splitlines()[0].rstrip(".")
    if "onfig name is missing" in str(error) or "BuilderConfig" in str(error):
        choices = " ".join(str(error).split())
        return HubError(f"hub:{name}: {choices[:300]}; name a configuration as hub:NAME/CONFIG")
    if isinstance(error, DatasetNotFoundError):
        return HubError(f"hub:{name}: the hub has no such data set ({reason}); check its name")
    return HubError(f"hub:{name}: cannot be fetched ({reason}); check the name and the connection; {OFFLINE_ADVICE}")
