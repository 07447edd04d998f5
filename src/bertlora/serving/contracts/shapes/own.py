"""Bodies of our own contract."""

import re
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, Field, model_validator

from bertlora.serving.bodies import Known, shown
from bertlora.serving.contracts.asked import Item
from bertlora.serving.contracts.predictions import Options
from bertlora.serving.refused import Why

EXAMPLE = {
    "adapter": "reviews",
    "predictions": [
        {
            "label": "positive",
            "confidence": 0.92,
            "probabilities": {"negative": 0.08, "positive": 0.92},
            "labels": ["positive"],
        }
    ],
    "tokens": 9,
    "notes": [],
}


def _abstain(given: str) -> str:
    if given and not re.fullmatch(r"(accuracy|coverage)=[0-9.]{1,20}", given):
        raise ValueError("expected accuracy=A or coverage=C with a share, such as accuracy=0.95")
    return given


class Fault(BaseModel):
    """A request that was refused."""

    model_config = shown({"error": "texts[3]: is blank, expected a text", "reason": "empty"})

    error: str = Field(
        description="what, where, and what was expected", examples=["texts[3]: is blank, expected a text"]
    )
    reason: Literal[tuple(why.name.lower() for why in Why)]  # type: ignore[valid-type]  # one list of reasons


class PredictRequest(Known):
    """Texts or pairs, and what to say of them. The options are those of `Run.predict`."""

    model_config = shown({"texts": ["A joy from start to finish."], "sets": 0.9})

    texts: list[str] | None = Field(None, description="single texts", examples=[["A joy from start to finish."]])
    pairs: list[tuple[str, str]] | None = Field(None, description="pairs of texts, for an adapter that reads pairs")
    raw: bool = Field(False, description="leave out the calibration")
    abstain: Annotated[str, AfterValidator(_abstain)] = Field("", description="such as accuracy=0.95")
    sets: float | None = Field(None, gt=0, lt=1, description="also give label sets; this share has the right label")
    per_class: bool = Field(False, description="the share of `sets` holds for each class")
    base: bool = Field(False, description="the base with its untrained head answers")
    explain: bool = Field(False, description="also say how much each word counts")
    truncation: Literal["left", "right", "none"] | None = Field(
        None, description="where a long text is cut; none refuses it; null does what the run does"
    )

    @model_validator(mode="after")
    def _either(self) -> "PredictRequest":
        if (self.texts is None) == (self.pairs is None):
            raise ValueError("has both texts and pairs, or neither; expected one of them")
        return self

    def items(self) -> list[Item]:
        """Returns the texts or pairs."""
        return [(text, None) for text in self.texts] if self.texts is not None else list(self.pairs or ())

    @property
    def field(self) -> str:
        """Where the texts are."""
        return "pairs" if self.texts is None else "texts"

    def options(self) -> Options:
        """Returns what to say of the texts."""
        said = {"raw": self.raw, "abstain": self.abstain, "sets": self.sets, "per_class": self.per_class}
        return Options(said, self.base, self.explain, self.truncation)


class ManyRequest(PredictRequest):
    """The same of several adapters."""

    model_config = shown({"texts": ["A joy from start to finish."], "adapters": ["reviews", "topics"]})

    adapters: list[str] = Field(min_length=1, description="names of adapters", examples=[["reviews", "topics"]])

    @model_validator(mode="after")
    def _once(self) -> "ManyRequest":
        if len(set(self.adapters)) < len(self.adapters):
            raise ValueError("adapters: has a name twice; expected each once")
        return self


class Prediction(BaseModel):
    """What an adapter says of a text. The fields depend on its task and on the options."""

    label: str | None = Field(None, description="the most probable class; null if the adapter abstains")
    confidence: float | None = Field(None, description="its probability, 0 to 1")
    probabilities: dict[str, float] | None = Field(None, description="of every label, calibrated unless raw")
    abstained: bool | None = Field(None, description="whether the confidence is too low for a label")
    labels: list[str] | None = Field(None, description="the label set; with several labels those of the text")
    value: float | None = Field(None, description="the number of a regression")
    interval: tuple[float, float] | None = Field(None, description="contains the true number nine times of ten")
    explanation: dict[str, Any] | None = Field(None, description="what each word adds")


class PredictAnswer(BaseModel):
    """One prediction for each text, in order."""

    model_config = shown(EXAMPLE)

    adapter: str
    predictions: list[Prediction]
    tokens: int = Field(description="tokens that the model read")
    notes: list[str] = Field(description="what a threshold or a set is based on")


class ManyAnswer(BaseModel):
    """The predictions of each adapter, in the order of the request."""

    model_config = shown({"adapters": [EXAMPLE]})

    adapters: list[PredictAnswer]


class Adapter(BaseModel):
    """What an adapter predicts."""

    model_config = shown(
        {
            "name": "reviews",
            "task": "classification",
            "labels": ["negative", "positive"],
            "pairs": False,
            "max_length": 512,
        }
    )

    name: str
    task: Literal["classification", "multilabel", "regression"]
    labels: list[str] = Field(description="the labels, or the name of the number")
    pairs: bool = Field(description="whether it reads pairs of texts")
    max_length: int = Field(description="longest text in tokens")


class Adapters(BaseModel):
    """The names that may be asked for."""

    model_config = shown({"default": "reviews", "adapters": ["reviews", "topics"]})

    default: str | None = Field(description="answers where a request names none")
    adapters: list[str]


class LoadRequest(Known):
    """A run to load."""

    model_config = shown({"path": "reviews-2"})

    path: str = Field(min_length=1, max_length=1024, description="below the folder of runs of the server")
