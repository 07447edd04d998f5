"""Bodies of text-embeddings-inference, as `docs/openapi.json` of that project has them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, WithJsonSchema

from bertlora.serving.bodies import shown
from bertlora.serving.contracts.asked import Item

_STRING = {"type": "string"}
_ITEM = {"type": "array", "items": _STRING, "minItems": 1, "maxItems": 2}
INPUTS_SCHEMA = {
    "description": "a text, a pair of texts, or a batch of both",
    "oneOf": [_STRING, _ITEM, {"type": "array", "items": _ITEM}],
    "examples": ["A joy from start to finish.", ["first", "second"], [["first"], ["second"]]],
}


def _inputs(given: Any) -> Any:
    """Checks `inputs`: a string, a flat list of one or two strings, or a list of such lists."""
    expected = 'expected "text", ["first", "second"] for a pair, or [["a"], ["b"]] for a batch'
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise ValueError(expected)
    for i, row in enumerate(given if given and isinstance(given[0], list) else [given]):
        if not isinstance(row, list) or not all(isinstance(text, str) for text in row):
            raise ValueError(f"item {i}: {expected}")
        if given and not 1 <= len(row) <= 2:
            raise ValueError(f"got a list of {len(row)} strings, which is neither a text nor a pair; {expected}")
    return given


def _lower(given: Any) -> Any:
    return given.lower() if isinstance(given, str) else given


class Parameters(BaseModel):
    """What clients of Hugging Face's inference API send."""

    top_k: int | None = Field(None, ge=1, description="give only the highest scores")
    function_to_apply: Literal["softmax", "sigmoid", "none"] | None = Field(None, description="none gives logits")


class TeiRequest(BaseModel):
    """A text, a pair, or a batch."""

    model_config = shown({"inputs": "A joy from start to finish."})

    inputs: Annotated[Any, AfterValidator(_inputs), WithJsonSchema(INPUTS_SCHEMA)]
    truncate: bool | None = Field(
        None, description="false refuses a text that is too long; null does what the run does"
    )
    truncation_direction: Annotated[Literal["left", "right"] | None, BeforeValidator(_lower)] = Field(
        None, description="where a long text is cut; without it as in the run"
    )
    raw_scores: bool = Field(False, description="give logits")
    parameters: Parameters | None = Field(None, description="of Hugging Face's inference API; gives a list a text")

    def items(self) -> tuple[list[Item], bool]:
        """Returns the texts and pairs, and whether they are a batch."""
        if isinstance(self.inputs, str):
            return [(self.inputs, None)], False
        batch = bool(self.inputs) and isinstance(self.inputs[0], list)
        rows = self.inputs if batch else [self.inputs] * bool(self.inputs)
        return [(row[0], row[1] if len(row) == 2 else None) for row in rows], batch

    @property
    def truncation(self) -> str | None:
        """Where a long text is cut, as `Question` has it."""
        return "none" if self.truncate is False else self.truncation_direction


class Score(BaseModel):
    """A label and its score: a probability, or a logit if raw; of a regression its number."""

    model_config = shown({"score": 0.92, "label": "positive"})

    score: float = Field(examples=[0.98])
    label: str = Field(examples=["positive"])


class Classifier(BaseModel):
    """The labels."""

    model_config = shown({"id2label": {"0": "negative", "1": "positive"}, "label2id": {"negative": 0, "positive": 1}})

    id2label: dict[str, str] = Field(examples=[{"0": "negative", "1": "positive"}])
    label2id: dict[str, int] = Field(examples=[{"negative": 0, "positive": 1}])


class ModelType(BaseModel):
    """The kind of model."""

    classifier: Classifier


class Info(BaseModel):
    """The adapter and the limits."""

    model_config = shown(
        {
            "model_id": "reviews",
            "model_sha": "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db",
            "model_dtype": "float32",
            "model_type": {"classifier": {"id2label": {"0": "no", "1": "yes"}, "label2id": {"no": 0, "yes": 1}}},
            "max_concurrent_requests": 1024,
            "max_input_length": 512,
            "max_batch_tokens": 524288,
            "max_client_batch_size": 1024,
            "auto_truncate": True,
            "tokenization_workers": 2,
            "version": "0.1.0",
        }
    )

    model_id: str = Field(description="the name of the adapter")
    model_sha: str | None = Field(description="SHA-256 of the weights of its base")
    model_dtype: str
    model_type: ModelType
    max_concurrent_requests: int
    max_input_length: int = Field(description="in tokens")
    max_batch_tokens: int
    max_batch_requests: int | None = None
    max_client_batch_size: int = Field(description="texts in a request")
    auto_truncate: bool
    tokenization_workers: int
    version: str
    sha: str | None = None
    docker_label: str | None = None


class TeiFault(BaseModel):
    """A request that was refused."""

    model_config = shown({"error": "inputs[3]: is blank, expected a text", "error_type": "Empty"})

    error: str = Field(examples=["inputs[3]: is blank, expected a text"])
    error_type: Literal["Validation", "Empty", "Backend", "Overloaded", "Unhealthy"]


class Health(BaseModel):
    """The server answers questions."""

    model_config = shown({"status": "ok"})

    status: Literal["ok"]
