"""The operations that are built, one row each: the server's routes and the client's methods read this table."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

Kind = Literal[
    "point",
    "points",
    "point or points",
    "bool",
    "int",
    "float",
    "string",
    "choice",
    "choices",
    "tensor",
    "number or tensor",
    "name or names",
    "numbers",
]


ALONE = frozenset({"weight_gradients", "diagnose"})
"""The operations that tell of a request's samples together: none of them is joined with another request."""


class Required:
    """Stands as the default of a parameter that has none."""

    def __repr__(self) -> str:
        return "required"


REQUIRED = Required()


@dataclass(frozen=True)
class Parameter:
    """One parameter of an operation. `choices` belongs to `choice` and `choices`, `least` and `most` to numbers."""

    name: str
    kind: Kind
    default: Any = REQUIRED
    doc: str = ""
    choices: tuple[str, ...] = ()
    least: float | None = None
    most: float | None = None

    @property
    def required(self) -> bool:
        """Whether a request must give it."""
        return isinstance(self.default, Required)


@dataclass(frozen=True)
class Operation:
    """One thing that can be asked."""

    name: str
    doc: str
    parameters: tuple[Parameter, ...]

    def parameter(self, name: str) -> Parameter | None:
        """The parameter of that name."""
        return next((parameter for parameter in self.parameters if parameter.name == name), None)


PRECISION = Parameter(
    "precision",
    "choice",
    None,
    "What to compute in; by default the model's own dtype, at least float32.",
    choices=("float32", "float64", "tf32"),
)
DRY_RUN = Parameter("dry_run", "bool", False, "Answer shapes, bytes, route and cost without computing.")
LAG = Parameter("lag", "int", None, "Only d of[t] / d wrt[t - lag], for every t.", least=0)
REDUCE = Parameter(
    "reduce",
    "choice",
    "none",
    "Each pair of timesteps' matrix (of units x wrt units) to its Frobenius norm, its largest or all singular values, "
    "or its sum over the units of `of`.",
    choices=("none", "norm", "spectral_norm", "singular_values", "sum"),
)
OF = Parameter("of", "point or points", doc="What is differentiated.")
WRT = Parameter("wrt", "point or points", doc="With respect to what.")

_ROWS = (
    Operation(
        "states",
        "The values at points of the model, and the states to carry on from.",
        (
            Parameter("points", "points", (), "Which points; every recurrent state where none is named."),
            Parameter("final_states", "bool", False, "Also every X.final, ready to be the next initial_states."),
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "jacobian",
        "The Jacobian d of / d wrt for each sample.",
        (
            OF,
            WRT,
            LAG,
            REDUCE,
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "vjp",
        "A cotangent times the Jacobian; with ones, what GradientTape.gradient gives.",
        (
            OF,
            WRT,
            Parameter("cotangent", "tensor", None, "In the shape of `of`, or stacked; ones by default."),
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "jvp",
        "The Jacobian times a tangent.",
        (OF, WRT, Parameter("tangent", "tensor", doc="In the shape of `wrt`, or stacked."), PRECISION, DRY_RUN),
    ),
    Operation(
        "hvp",
        "The Hessian of one number a sample, times a tangent.",
        (
            Parameter("of", "point", doc="One number a sample, as outputs[2]."),
            Parameter("wrt", "point", doc="With respect to what, twice."),
            Parameter("tangent", "tensor", doc="In the shape of `wrt`, or stacked."),
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "check",
        "The Jacobian by central differences in float64, and how far the other is from it.",
        (OF, WRT, LAG, REDUCE, PRECISION, DRY_RUN),
    ),
    Operation(
        "saliency",
        "Attributions of one number a sample to the entries of `wrt`.",
        (
            Parameter("target", "point", doc="One number a sample: outputs[2], outputs[argmax], lstm.h[-1, 3]."),
            Parameter("method", "choice", "gradient", "How.", ("gradient", "gradient_x_input", "integrated_gradients")),
            Parameter("wrt", "point", "inputs", "To whose entries."),
            Parameter("baseline", "number or tensor", 0.0, "Where integrated gradients start from."),
            Parameter("n_steps", "int", 50, "Steps of the integrated-gradients path.", least=1, most=10_000),
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "weight_gradients",
        "The gradient of a loss, or of a point, with respect to every weight: its norm, by timestep and by gate.",
        (
            Parameter("targets", "tensor", None, "What the outputs should be; by output where there are several."),
            Parameter("loss", "name or names", None, "A loss of Keras's, or one for each output; the compiled one."),
            Parameter("of", "point", None, "One number a sample, as outputs[2], instead of targets and a loss."),
            Parameter("by", "choices", (), "Apart by what, in the order of the answer's axes.", ("gate", "timestep")),
            Parameter("per_sample", "bool", False, "For each sample, of its own loss, instead of over the batch."),
            Parameter("values", "bool", False, "Also the gradients themselves, and the weights."),
            Parameter("statistics", "bool", False, "Also the mean, the extremes and the share of zeros."),
            PRECISION,
            DRY_RUN,
        ),
    ),
    Operation(
        "diagnose",
        "Whether gradients vanish or explode through each recurrent layer, with the evidence.",
        (
            Parameter("targets", "tensor", None, "What the outputs should be, for the gradients of the weights too."),
            Parameter("loss", "name or names", None, "A loss of Keras's, or one for each output; the compiled one."),
            Parameter("of", "point", None, "One number a sample, as outputs[2], instead of targets and a loss."),
            Parameter("layer", "string", None, "A recurrent layer's point, as lstm or bi.forward; by default all."),
            Parameter("thresholds", "numbers", None, "What findings are held against, by name; see docs/diagnose.md."),
            Parameter("exponents", "int", 8, "How many leading Lyapunov exponents.", least=1, most=4096),
            Parameter(
                "transient",
                "int",
                None,
                "Timesteps that the exponents leave out at either end; by default a tenth of each sequence.",
                least=0,
            ),
            Parameter(
                "steps",
                "int",
                None,
                "At how many timesteps, evenly spread, the local Jacobian is formed; by default what is soon done.",
                least=1,
            ),
            PRECISION,
            DRY_RUN,
        ),
    ),
)

OPERATIONS: Mapping[str, Operation] = {row.name: row for row in _ROWS}
INFER = Operation("infer", "The model's outputs.", (PRECISION, DRY_RUN))
