"""Bodies of the Open Inference Protocol.

`specification/protocol/inference_rest.md` of kserve/open-inference-protocol has them.
"""

from typing import Any, Literal

from pydantic import BaseModel, Field

from bertlora.serving.bodies import shown


class Tensor(BaseModel):
    """A tensor of texts that is asked about."""

    name: str = Field(description="text, or text_pair for the second texts of pairs", examples=["text"])
    shape: list[int] = Field(description="[N] or [N, 1]", examples=[[1]])
    datatype: Literal["BYTES"]
    parameters: dict[str, Any] = Field({}, description="binary_data_size if its data are behind the JSON")
    data: Any = Field(None, description="the texts", examples=[["A joy from start to finish."]])


class Wanted(BaseModel):
    """A tensor that the answer must have."""

    name: str = Field(examples=["probabilities"])
    parameters: dict[str, Any] = Field({}, description="binary_data: true puts its data behind the JSON")


class InferRequest(BaseModel):
    """Texts for an adapter."""

    model_config = shown(
        {"inputs": [{"name": "text", "shape": [1], "datatype": "BYTES", "data": ["A joy from start to finish."]}]}
    )

    id: str | None = None
    parameters: dict[str, Any] = Field({}, description="binary_data_output: true puts all data behind the JSON")
    inputs: list[Tensor] = Field(min_length=1)
    outputs: list[Wanted] | None = Field(None, description="without it all tensors")


class TensorFacts(BaseModel):
    """A tensor of a model."""

    name: str
    datatype: Literal["BYTES", "FP64", "BOOL"]
    shape: list[int] = Field(description="-1 is any number of texts")


class OutputTensor(TensorFacts):
    """A tensor of an answer."""

    parameters: dict[str, int] | None = None
    data: list[str] | list[float] | list[bool] | None = None


class InferAnswer(BaseModel):
    """The tensors, in the order of the texts."""

    model_config = shown(
        {
            "model_name": "reviews",
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [1], "data": ["positive"]},
                {"name": "confidence", "datatype": "FP64", "shape": [1], "data": [0.92]},
                {"name": "probabilities", "datatype": "FP64", "shape": [1, 2], "data": [0.08, 0.92]},
                {"name": "labels", "datatype": "BYTES", "shape": [2], "data": ["negative", "positive"]},
            ],
        }
    )

    model_name: str
    id: str | None = None
    outputs: list[OutputTensor]


class ModelFacts(BaseModel):
    """The tensors of an adapter."""

    model_config = shown(
        {
            "name": "reviews",
            "platform": "bertlora",
            "inputs": [{"name": "text", "datatype": "BYTES", "shape": [-1]}],
            "outputs": [
                {"name": "label", "datatype": "BYTES", "shape": [-1]},
                {"name": "confidence", "datatype": "FP64", "shape": [-1]},
                {"name": "probabilities", "datatype": "FP64", "shape": [-1, 2]},
                {"name": "labels", "datatype": "BYTES", "shape": [2]},
            ],
        }
    )

    name: str
    platform: Literal["bertlora"]
    inputs: list[TensorFacts]
    outputs: list[TensorFacts]


class ServerFacts(BaseModel):
    """The server."""

    model_config = shown({"name": "bertlora", "version": "0.1.0", "extensions": ["binary_tensor_data"]})

    name: Literal["bertlora"]
    version: str
    extensions: list[str]


class Live(BaseModel):
    """The server hears requests."""

    model_config = shown({"live": True})

    live: bool


class Ready(BaseModel):
    """The server answers questions."""

    model_config = shown({"ready": True})

    ready: bool


class ModelReady(Ready):
    """The adapter answers questions."""

    model_config = shown({"name": "reviews", "ready": True})

    name: str


class InferFault(BaseModel):
    """A request that was refused."""

    model_config = shown({"error": "inputs 'text'[3]: is blank, expected a text"})

    error: str = Field(examples=["inputs 'text'[3]: is blank, expected a text"])
