"""Bodies of vLLM, as `vllm/entrypoints/pooling/classify/protocol.py` of that project has them."""

from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, WithJsonSchema

from bertlora.serving.bodies import shown
from bertlora.serving.contracts.asked import Item

_STRING = {"type": "string"}
INPUT_SCHEMA = {
    "description": "a text or several",
    "oneOf": [_STRING, {"type": "array", "items": _STRING}],
    "examples": ["A joy from start to finish.", ["first", "second"]],
}


def _input(given: Any) -> Any:
    if isinstance(given, str):
        return given
    if not isinstance(given, list):
        raise ValueError("expected a string, or a list of strings")
    for i, text in enumerate(given):
        if not isinstance(text, str):
            raise ValueError(f"item {i} is not a string; expected texts, and no token ids")
    return given


class ClassifyRequest(BaseModel):
    """Texts for an adapter."""

    model_config = shown({"model": "reviews", "input": ["A joy from start to finish."]})

    model: str | None = Field(None, description="the adapter; without it the first one answers", examples=["reviews"])
    input: Annotated[Any, AfterValidator(_input), WithJsonSchema(INPUT_SCHEMA)]
    truncate_prompt_tokens: Literal[-1] | None = Field(None, description="a long text is cut as in the run")
    use_activation: bool | None = Field(None, description="false gives logits")
    activation: bool | None = Field(None, description="an older name of use_activation")
    softmax: bool | None = Field(None, description="an older name of use_activation")

    @property
    def raw(self) -> bool:
        """Whether logits are wanted."""
        given = (self.use_activation, self.activation, self.softmax)
        return next((one is False for one in given if one is not None), False)

    def items(self) -> list[Item]:
        """Returns the texts."""
        return [(text, None) for text in ([self.input] if isinstance(self.input, str) else self.input)]


class Classified(BaseModel):
    """The answer to a text."""

    index: int
    label: str | None = Field(description="the label with the highest score; the name of the number of a regression")
    probs: list[float] = Field(description="probabilities in the order of the labels; the number of a regression")
    num_classes: int


class Usage(BaseModel):
    """Tokens that the model read."""

    prompt_tokens: int
    total_tokens: int
    completion_tokens: int | None = 0
    prompt_tokens_details: None = None


class ClassifyAnswer(BaseModel):
    """The answers to all texts, in order."""

    model_config = shown(
        {
            "id": "classify-5a7956c439da41d0a5932787a9f771d6",
            "object": "list",
            "created": 1795697185,
            "model": "reviews",
            "data": [{"index": 0, "label": "positive", "probs": [0.08, 0.92], "num_classes": 2}],
            "usage": {"prompt_tokens": 9, "total_tokens": 9, "completion_tokens": 0, "prompt_tokens_details": None},
        }
    )

    id: str = Field(description="classify- and the id of the request")
    object: Literal["list"]
    created: int = Field(description="seconds since 1970")
    model: str
    data: list[Classified]
    usage: Usage


class Model(BaseModel):
    """An adapter."""

    id: str
    object: Literal["model"]
    created: int
    owned_by: Literal["bertlora"]
    root: str
    parent: None = None


class Models(BaseModel):
    """The adapters."""

    model_config = shown(
        {
            "object": "list",
            "data": [
                {
                    "id": "reviews",
                    "object": "model",
                    "created": 1795697185,
                    "owned_by": "bertlora",
                    "root": "reviews",
                    "parent": None,
                }
            ],
        }
    )

    object: Literal["list"]
    data: list[Model]


class FaultInfo(BaseModel):
    """Why a request was refused."""

    message: str = Field(examples=["input[3]: is blank, expected a text"])
    type: str = Field(examples=["BadRequestError"])
    param: str | None = None
    code: int = Field(examples=[400])


class VllmFault(BaseModel):
    """A request that was refused."""

    model_config = shown(
        {
            "error": {
                "message": "input[3]: is blank, expected a text",
                "type": "BadRequestError",
                "param": None,
                "code": 400,
            }
        }
    )

    error: FaultInfo
