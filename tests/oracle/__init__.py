"""An independent second opinion on derivatives, written from the contract and sharing no code with the engine.

`Oracle(model)(inputs)` re-computes a Keras model from its public weights with the formulas of `formulas`, as a pure
function of one nudge for every point, and lets JAX differentiate that function in float64: every point with respect to
every point, in one call. `central_differences` asks Keras's own cells the same by stepping them with perturbed points;
it knows no formula and no derivative.

    graph      the walk over a Keras graph: where each point is produced, nudged and recorded
    formulas   cells and layers written out in JAX
    layers     more layers, of the same kind
    keras_own  cells and layers as Keras computes them
    answers    points written as text, looked up in what a walk gave
    oracle     the two users of all this: JAX's derivatives, and central differences
"""

from oracle import layers
from oracle.answers import Answer
from oracle.oracle import Oracle, central_differences

__all__ = ["Answer", "Oracle", "central_differences", "layers"]
